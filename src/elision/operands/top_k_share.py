"""The largest values of a tensor, at a density that a rule moves (SWAT-M)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import number
from elision.operands.base import State, Transform
from elision.operands.top_k import keep_from, kth_largest

__all__ = ["TopKShare"]


@dataclass(frozen=True)
class TopKShare(Transform):
    """Keep the share of largest magnitude that the layer's ``density`` buffer names.

    As :class:`elision.operands.TopK` with a density that a rule moves between steps
    (:class:`elision.topology.MomentumBudget`) instead of one fixed by the recipe.

    Attributes:
        sparsity: fraction set to zero before the density first moves, in [0, 1).

    Example:
        >>> state = {"density": torch.tensor(0.5)}
        >>> TopKShare(0.9).apply(torch.tensor([3.0, -1.0]), state, True).tolist()
        [3.0, 0.0]
    """

    sparsity: float

    sparsifies = True
    reads_axes = False
    writes_state = False

    def check(self) -> None:
        number("TopKShare", "sparsity", self.sparsity, "[0, 1)")

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
