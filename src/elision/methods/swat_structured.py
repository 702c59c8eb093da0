"""Structured SWAT: whole kernel slices or filters are left out."""

from dataclasses import dataclass
from typing import Literal

from elision.methods.swat import Swat
from elision.operands import TopKSlices, Transform

__all__ = ["SwatStructured"]


@dataclass(frozen=True)
class SwatStructured(Swat):
    """SWAT whose weights are left out slice by slice, by L1 norm, in every step.

    A slice is a kernel ``W[k, c]`` (``"channel"``, what the paper calls channel pruned)
    or a filter ``W[k]``. Activations stay unstructured top-k: structured activation
    pruning hurt convergence, according to the authors.

    Attributes:
        sparsity: fraction of the slices left out (published: 0.5, 0.6, 0.7).
        slices: ``"channel"`` or ``"filter"``.

    Example:
        >>> from elision.products import Product
        >>> print(SwatStructured(0.5, slices="filter").table[Product.FORWARD, "weight"])
        top 0.5 of the filters by L1 norm
    """

    sparsity: float = 0.7
    slices: Literal["channel", "filter"] = "channel"

    key = "swat-structured"

    def _weights(self, sparsity: float) -> Transform:
        return TopKSlices(sparsity, self.slices)
