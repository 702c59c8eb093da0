"""Delay of each stage's gradient, in updates, and the weights its backward pass reads.

``n`` stages ``s = 0 … n-1``; the gradient of micro-batch ``i`` at stage ``s`` is computed
with a forward pass on ``W_s(i - d_s)`` and is update ``i`` of the stage.

- Synchronous schedules drain the pipeline before they update: ``d_s = 0``.
- PipeDream computes one forward *or* one backward pass a tick (1F1B), so that ``n - 1 - s``
  updates pass between the two of a micro-batch (Narayanan et al., SOSP 2019).
- PipeDream-2BW updates once in ``m >= n`` micro-batches: ``d_s = 1`` (ICML 2021).
- LayerPipe computes one forward *and* one backward pass a tick, of different micro-batches:
  ``d_s = 2(n - 1 - s)``, twice the stages after it (LayerPipe2, arXiv 2512.08160).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from elision.common.checks import integer
from elision.common.names import lookup
from elision.training.pipeline.schedules import Schedule, find_schedule

__all__ = ["WEIGHTS", "BackwardWeights", "backward_weights", "delays_of"]

#: A schedule, its name, or the delay of every stage in updates.
Delays = str | Schedule | Sequence[int]


def delays_of(delays: Delays, stages: int) -> tuple[int, ...]:
    """The delay of every stage, first stage first.

    Args:
        delays: a schedule or its name, or the delays themselves.
        stages: how many stages there are.

    Raises:
        ValueError: an unknown schedule, a delay below 0, or not one delay a stage.

    Example:
        >>> delays_of("pipedream", 4), delays_of("1f1b", 4)
        ((3, 2, 1, 0), (0, 0, 0, 0))
    """
    if isinstance(delays, str):
        delays = find_schedule(delays)
    if isinstance(delays, Schedule):
        return tuple(delays.delay(stage, stages) for stage in range(stages))
    if len(delays) != stages:
        raise ValueError(f"{stages} stages need {stages} delays, got {len(delays)}")
    return tuple(integer("delays_of", "delays", d, ">= 0") for d in delays)


@dataclass(frozen=True)
class BackwardWeights:
    """Which weights a backward pass reads when the forward pass read older ones.

    Attributes:
        reads: ``"used"``: those of the forward pass; ``"current"``: today's;
            ``"rebuilt"``: an estimate of those of the forward pass.
        recompute: whether the stage is computed again with them from its saved input,
            so that activations and weights belong together.
        note: what it is, in words.
    """

    reads: Literal["used", "current", "rebuilt"]
    recompute: bool
    note: str

    def copies(self, delay: int) -> int:
        """Copies of a stage's weights that are kept, the current ones included."""
        if self.reads == "used":
            return delay + 1
        return 2 if self.reads == "rebuilt" and delay else 1


#: What the backward pass reads, by name.
WEIGHTS: dict[str, BackwardWeights] = {
    "stash": BackwardWeights(
        "used", False, "the weights of the forward pass, kept (PipeDream, 2BW)"
    ),
    "recompute": BackwardWeights(
        "current", True, "today's weights, the stage computed again from its input"
    ),
    "mixed": BackwardWeights(
        "current",
        False,
        "today's weights on old activations (PipeDream without stashing)",
    ),
    "average": BackwardWeights(
        "rebuilt", False, "old weights rebuilt from a moving average (LayerPipe2)"
    ),
}

#: The same by what a schedule does with its weights (``schedules.base.MEMORIES``).
_OF_MEMORY = {
    "flush": "stash",  # nothing changes them, so that all four are the same
    "stash": "stash",
    "double": "stash",
    "none": "mixed",
    "average": "average",
}


def backward_weights(delays: Delays, weights: str | None) -> BackwardWeights:
    """What the backward pass reads, by name or as the schedule has it.

    Args:
        delays: as for :func:`delays_of`.
        weights: key of :data:`WEIGHTS`; None: the schedule's own, ``"stash"`` for delays
            without a schedule.

    Raises:
        ValueError: an unknown name.
    """
    if weights is None:
        if isinstance(delays, str):
            delays = find_schedule(delays)
        own = delays.weights if isinstance(delays, Schedule) else "stash"
        weights = _OF_MEMORY[own]
    return lookup("weights", weights, WEIGHTS)
