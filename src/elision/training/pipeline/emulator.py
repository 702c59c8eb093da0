"""What a schedule's delays do to training, emulated exactly in one process.

Micro-batch ``i`` passes stage ``s`` with the weights that a pipeline would hold there when
it arrives, ``W_s(i - d_s)``; its gradient is update ``i``. A pipeline computes the same
numbers in another order in time, so none of its time is needed here.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.common.restoring import restored
from elision.training.pipeline.delays import Delays, backward_weights, delays_of
from elision.training.pipeline.weights import MakeOptimizer, StageWeights

__all__ = ["DelayEmulator", "add", "backward", "no_tied_weights", "split"]


def split(batch: Tensor, microbatches: int) -> tuple[Tensor, ...]:
    """The batch in ``microbatches`` equal parts along its first dimension.

    Raises:
        ValueError: they would not be equal, so that the mean of their mean losses would
            not be the batch's.
    """
    if len(batch) % microbatches:
        raise ValueError(
            f"a batch of {len(batch)} does not split into {microbatches} equal "
            "micro-batches"
        )
    return torch.tensor_split(batch, microbatches)


class DelayEmulator:
    """Trains a chain of stages as a pipeline with the delays of a schedule would.

    The update of batch ``i`` is

        ``W_s(i+1) = W_s(i) - step(∂L_i/∂W_s at W_0(i-d_0), …, W_{n-1}(i-d_{n-1}))``

    with ``W(negative) = W(0)`` and the optimiser's ``step``; ``weights`` says at which
    weights the backward pass of a delayed stage is computed instead. Without delay this
    is the optimiser on the whole network, to the last bit.

    Batch normalisation sees one micro-batch at a time, as in a pipeline: its statistics
    are the micro-batch's, and its running averages move once per micro-batch.

    Args:
        stages: modules that pass one tensor on; trained in place.
        loss: of the last stage's output and a target; the mean over examples.
        make_optimizer: of one stage's parameters.
        delays: a schedule or its name, or the delay of every stage in updates.
        weights: key of :data:`~elision.training.pipeline.delays.WEIGHTS`; None: what the
            schedule does, ``"stash"`` for delays without a schedule.
        microbatches: per update.

    Raises:
        ValueError: no stage, an unknown name, a number out of range, or a parameter
            that two stages share.

    Example:
        >>> stages = [nn.Linear(2, 2), nn.Linear(2, 1)]
        >>> emulator = DelayEmulator(
        ...     stages, nn.functional.mse_loss, lambda p: torch.optim.SGD(p, 0.1),
        ...     delays="pipedream")
        >>> loss = emulator.step(torch.ones(4, 2), torch.zeros(4, 1))
        >>> emulator.delays, emulator.kept
        ((1, 0), (2, 1))
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        make_optimizer: MakeOptimizer,
        *,
        delays: Delays,
        weights: str | None = None,
        microbatches: int = 1,
    ) -> None:
        integer("DelayEmulator", "stages", len(stages))
        self.microbatches = integer("DelayEmulator", "microbatches", microbatches)
        backward = backward_weights(delays, weights)
        no_tied_weights(stages)
        self.stages, self.loss = list(stages), loss
        self.delays = delays_of(delays, len(stages))
        self.weights = [
            StageWeights(stage, make_optimizer, delay, backward, history=True)
            for stage, delay in zip(stages, self.delays, strict=True)
        ]
        self._recompute = backward.recompute
        self._index = 0

    @property
    def kept(self) -> tuple[int, ...]:
        """Copies of its weights that a pipeline keeps at each stage from here on."""
        return tuple(w.backward.copies(w.delay) for w in self.weights)

    def step(self, inputs: Tensor, target: Tensor) -> float:
        """Train on one batch; the loss of its forward pass, mean over micro-batches."""
        total: list[list[Tensor | None]] = [
            [None] * len(w.parameters) for w in self.weights
        ]
        losses = []
        parts = split(inputs, self.microbatches), split(target, self.microbatches)
        for x, wanted in zip(*parts, strict=True):
            loss, gradients = self._gradients(x, wanted)
            losses.append(loss)
            for sums, found in zip(total, gradients, strict=True):
                for i, gradient in enumerate(found):
                    sums[i] = add(sums[i], gradient)
        for weights, sums in zip(self.weights, total, strict=True):
            if self.microbatches > 1:
                sums = [None if g is None else g / self.microbatches for g in sums]
            weights.update(sums)
        self._index += 1
        return sum(losses) / len(losses)

    def _gradients(
        self, x: Tensor, target: Tensor
    ) -> tuple[float, list[list[Tensor | None]]]:
        """Loss and every stage's gradients, of one micro-batch."""
        passes: list[tuple[Tensor, Tensor, Tensor]] = []
        for index, (stage, weights) in enumerate(
            zip(self.stages, self.weights, strict=True)
        ):
            x = x.detach()
            if index:
                x.requires_grad_()
            random = torch.get_rng_state() if self._recompute else torch.empty(0)
            with weights.during_forward(self._index):
                y = self._out(index, stage(x), target)
            passes.append((x, y, random))
            x = y
        loss = float(passes[-1][1].detach())
        gradients: list[list[Tensor | None]] = []
        incoming: Tensor | None = None
        for index in reversed(range(len(self.stages))):
            weights = self.weights[index]
            x, y, random = passes.pop()
            again = self._recompute and weights.delay > 0
            with weights.during_backward(self._index), _kept(weights.module, again):
                if again:  # with the numbers drawn before
                    torch.set_rng_state(random)
                    y = self._out(index, weights.module(x), target)
                incoming, own = backward(y, x, weights.parameters, incoming)
            gradients.insert(0, own)
        return loss, gradients

    def _out(self, index: int, y: Tensor, target: Tensor) -> Tensor:
        return self.loss(y, target) if index == len(self.stages) - 1 else y


def _kept(stage: nn.Module, again: bool) -> AbstractContextManager[None]:
    """Statistics and random state as they are, where the stage is computed again."""
    return restored(stage, random_state=True) if again else nullcontext()


def backward(
    y: Tensor, x: Tensor, parameters: Sequence[Tensor], incoming: Tensor | None
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Gradients of a stage's input and parameters from that of its output.

    The input has none where it needs none (the first stage); a parameter that the pass
    did not use has none. A stage without anything to differentiate gives none at all.
    """
    wanted = [x, *parameters] if x.requires_grad else list(parameters)
    if not wanted or not y.requires_grad:
        return None, [None] * len(parameters)
    found = torch.autograd.grad(y, wanted, incoming, allow_unused=True)
    return (found[0], list(found[1:])) if x.requires_grad else (None, list(found))


def no_tied_weights(stages: Sequence[nn.Module]) -> None:
    """Raise ValueError if two stages hold one parameter, naming it in both."""
    seen: dict[int, tuple[int, str]] = {}
    for index, stage in enumerate(stages):
        for name, parameter in stage.named_parameters():
            first, its_name = seen.setdefault(id(parameter), (index, name))
            if first != index:
                raise ValueError(
                    f"stage {first}'s {its_name!r} and stage {index}'s {name!r} are one "
                    "parameter: tied weights must be in one stage"
                )


def add(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """The sum of two gradients, either of which may be missing."""
    if total is None or more is None:
        return more if total is None else total
    return total + more
