"""The weights of one stage: versions, the one that each pass reads, and the update."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from elision.training.pipeline.delays import BackwardWeights

__all__ = ["MakeOptimizer", "StageWeights"]

#: An optimiser of a stage's parameters, such as ``lambda p: torch.optim.SGD(p, 0.1)``.
MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class StageWeights:
    """Weights of a stage under a delay of ``d`` updates.

    Between passes the module holds the current weights. The optimiser works on a copy of
    them: a step in place would make autograd refuse the backward passes in flight, whose
    weights it has changed; and this is what ``mixed`` wants to happen, and ``stash`` to
    undo. So the values of a pass are copied into the module's own tensors, which the
    graph of the pass refers to, without autograd's knowledge.

    The moving average of ``average`` is ``e ← β·e + (1-β)·ΔW`` after each update, with
    ``β = d/(d+1)``, and the old weights are ``W(t-d) ≈ W(t) - d·e``. LayerPipe2's own
    decay could not be read; this one is the project's choice.

    Args:
        module: the stage. One without parameters has no optimiser and no versions.
        make_optimizer: of the parameters that need a gradient.
        delay: in updates.
        backward: which weights the backward pass reads.
        history: keep the versions of the last ``delay`` updates whether or not the
            backward pass reads them; the emulator's forward pass does.
    """

    def __init__(
        self,
        module: nn.Module,
        make_optimizer: MakeOptimizer,
        delay: int,
        backward: BackwardWeights,
        *,
        history: bool = False,
    ) -> None:
        self.module, self.delay, self.backward = module, delay, backward
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self._copies = [nn.Parameter(p.detach().clone()) for p in self.parameters]
        self.optimizer = make_optimizer(self._copies) if self.parameters else None
        self.updates = 0
        self._keep = delay + 1 if history or backward.reads == "used" else 1
        self._versions = {0: self._snapshot()}
        self._average = (
            [torch.zeros_like(p) for p in self._copies]
            if backward.reads == "rebuilt" and delay
            else None
        )

    @property
    def kept(self) -> int:
        """Copies of the weights that the backward rule keeps at this moment."""
        held = len(self._versions) if self.backward.reads == "used" else 1
        return held + (self._average is not None)

    def version_of(self, index: int) -> int:
        """Updates before the forward pass of micro-batch (or batch) ``index``."""
        return max(0, index - self.delay)

    @contextmanager
    def during_forward(self, index: int) -> Iterator[None]:
        """The module holds the weights of the forward pass of ``index``."""
        with self._holding(self._versions[self.version_of(index)]):
            yield

    @contextmanager
    def during_backward(self, index: int) -> Iterator[None]:
        """The module holds the weights that the backward pass of ``index`` reads."""
        version = self.version_of(index)
        if self.backward.reads == "used" or version == self.updates:
            values: Sequence[Tensor] = self._versions[version]
        elif self._average is None:
            values = self._copies
        else:
            behind = self.updates - version
            values = [
                w.detach() - behind * e
                for w, e in zip(self._copies, self._average, strict=True)
            ]
        with self._holding(values):
            yield

    def update(self, gradients: Sequence[Tensor | None]) -> None:
        """One step of the optimiser; the module then holds the new weights."""
        if self.optimizer is not None:
            before = self._versions[self.updates]
            for copy, gradient in zip(self._copies, gradients, strict=True):
                copy.grad = gradient
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self._average is not None:
                decay = self.delay / (self.delay + 1)
                for e, new, old in zip(
                    self._average, self._copies, before, strict=True
                ):
                    e.lerp_(new.detach() - old, 1 - decay)
        self.updates += 1
        self._versions[self.updates] = self._snapshot()
        self._versions.pop(self.updates - self._keep, None)
        _copy(self.parameters, self._copies)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state; empty for a stage without parameters."""
        return {} if self.optimizer is None else self.optimizer.state_dict()

    def _snapshot(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._copies]

    @contextmanager
    def _holding(self, values: Sequence[Tensor]) -> Iterator[None]:
        moved = values is not self._versions[self.updates]
        if moved:
            _copy(self.parameters, values)
        try:
            yield
        finally:
            if moved:
                _copy(self.parameters, self._copies)


def _copy(into: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    # ``data`` keeps the version counter: see StageWeights.
    for tensor, value in zip(into, values, strict=True):
        tensor.data.copy_(value.detach())
