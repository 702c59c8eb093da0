"""A mask from one learned threshold per output (DST)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import number
from elision.common.selecting import select
from elision.operands.base import State, Transform, density

__all__ = ["LearnedThreshold"]


@dataclass(frozen=True)
class LearnedThreshold(Transform):
    """Keep ``W`` where ``Q = |W| − t > 0``, with one threshold per output channel.

    The thresholds are a buffer ``(K,)``; how they learn is
    :class:`elision.topology.LearnedThresholds`. Where a training step would keep
    no more than ``floor`` of a layer, the layer's thresholds are set to zero first.

    Attributes:
        floor: keep ratio at or below which the thresholds are reset (published: 0.01).

    Example:
        >>> state = {"threshold": torch.tensor([0.5])}
        >>> LearnedThreshold().apply(torch.tensor([[0.2, -0.9]]), state, True).abs()
        tensor([[0.0000, 0.9000]])
    """

    floor: float = 0.01

    sparsifies = True

    def check(self) -> None:
        number("LearnedThreshold", "floor", self.floor, "[0, 1)")

    def initial_state(self) -> State:
        return {"threshold": torch.zeros(0)}

    def state_shapes(self, operand_shape: torch.Size) -> dict[str, torch.Size]:
        return {"threshold": operand_shape[:1]}

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        threshold = state["threshold"]
        if not threshold.numel():
            return x
        level = threshold.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
        kept = ~(x.abs() <= level)  # a NaN stays, so that a diverged run shows
        if training and density(kept) <= self.floor:
            threshold.zero_()
            kept = x != 0
        return select(x, kept)

    def __str__(self) -> str:
        return "above a learned threshold"
