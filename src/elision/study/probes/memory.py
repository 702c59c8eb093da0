"""Effect of a policy for saved activations on a trained recipe."""

from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

from torch import nn

from elision.common.checks import integer
from elision.common.restoring import restored
from elision.memory import codec_noise, policy_for, saver
from elision.memory.measures.measure import MemoryRow, measure_policies
from elision.study.probes.base import Probe, Trained

__all__ = ["ActivationMemory"]


@dataclass(frozen=True)
class ActivationMemory(Probe):
    """Bytes, measured peak, gradient error per layer, and codec noise beside the batch's.

    Attributes:
        policy: as for :class:`elision.memory.saver`, such as ``bits(4)``.
        batches: training batches to compare the noise on.
        rounds: timed steps.

    Raises:
        ValueError: an unknown policy, fewer than two batches, or no round.

    Example:
        >>> ActivationMemory("bits(4)", batches=1)
        Traceback (most recent call last):
        ValueError: memory(batches=1): must be an integer >= 2
    """

    policy: str = "bits(4)"
    batches: int = 6
    rounds: int = 3

    def __post_init__(self) -> None:
        policy_for(self.policy, nn.Identity())
        integer("memory", "batches", self.batches, ">= 2")
        integer("memory", "rounds", self.rounds)

    def headline(self, found: dict[str, Any]) -> str:
        """How many times fewer bytes are kept."""
        return f"{MemoryRow(**found['row']).tensor_ratio:.2f}x fewer bytes"

    def run(self, trained: Trained) -> dict[str, Any]:
        """Measure steps on the training batches that would have come next."""
        model, workload = trained.model, trained.workload
        following = workload.train_batches(
            trained.dataset, seed=trained.seed, epoch=workload.epochs
        )
        batches = list(islice(following, self.batches))
        images, labels = batches[0]
        (row,) = measure_policies(model, images, labels, (self.policy,), self.rounds)
        with restored(model), saver(model, self.policy, seed=0) as saved:
            model(images)
        loss = partial(workload.task.loss, model)
        noise = codec_noise(model, loss, batches, self.policy)
        return {
            "policy": self.policy,
            "row": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(row).items()
            },
            "ledger": saved.ledger.by_module(),
            "notes": saved.policy.notes(),
            "noise": [asdict(share) for share in noise],
        }
