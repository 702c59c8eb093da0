"""The largest values of a tensor, as many as a moving budget allows (SWAT-M)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.operands.base import State, Transform, fraction
from elision.operands.top_k import keep_from, kth_largest

__all__ = ["TopKShare"]


@dataclass(frozen=True)
class TopKShare(Transform):
    """Keep the share of largest magnitude that the layer's ``density`` buffer names.

    As :class:`elision.operands.TopK` with a density that a rule moves between steps
    (:class:`elision.topology.MomentumBudget`) instead of one fixed by the recipe.

    Attributes:
        sparsity: fraction set to zero before the density first moves, in [0, 1).
    """

    sparsity: float

    sparsifies = True

    def check(self) -> None:
        fraction("TopKShare", "sparsity", self.sparsity)

    def initial_state(self) -> State:
        return {"density": torch.tensor(1 - self.sparsity, dtype=torch.float64)}

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del training
        share = state["density"].item()
        if share >= 1 or not x.numel():
            return x
        return keep_from(x, kth_largest(x.abs(), share))

    def __str__(self) -> str:
        return f"top {1 - self.sparsity:.4g} by magnitude, then as the budget moves"
