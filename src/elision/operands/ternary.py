"""A weight as ternary terms of blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import integer, number, one_of
from elision.formats.ternary_blocks import (
    counts_of_best,
    rows_of,
    ternary_blocks,
    weight_of,
)
from elision.operands.base import State, Transform

__all__ = ["Ternary"]


@dataclass(frozen=True)
class Ternary(Transform):
    """A weight as a sum of ternary terms with one scale a block (arXiv 1707.04679).

    Blocks run along the inputs of an output, channels innermost, taps outermost; see
    :mod:`elision.formats.ternary_blocks`. The last block of a row may be shorter.

    Attributes:
        block: weights that share a scale, at least 1.
        terms: of every block; with a budget, the most of any block.
        budget: mean terms of a block, in [1, ``terms``]: beyond the first, terms go to
            the blocks where they remove the largest error. None: ``terms`` everywhere.
        threshold: ``"exact"``, the nearest ternary vector, or ``"twn"``, 0.7 of the mean
            magnitude.

    Example:
        >>> w = torch.tensor([[3.0, -1.0, 0.5, -4.0]])
        >>> Ternary(block=4, terms=1)(w, [], True).tolist()
        [[3.5, 0.0, 0.0, -3.5]]
    """

    block: int = 64
    terms: int = 2
    budget: float | None = None
    threshold: str = "exact"

    def check(self) -> None:
        integer("Ternary", "block", self.block)
        integer("Ternary", "terms", self.terms)
        one_of("Ternary", "threshold", self.threshold, ("exact", "twn"))
        if self.budget is not None:
            number("Ternary", "budget", self.budget, f"[1, {self.terms}]")

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        """The decoded weight, computed in float32 at least; NaN where it is not finite."""
        del state, training
        if not x.numel():
            return x
        rows = rows_of(x.float() if x.dtype.itemsize < 4 else x)
        terms = ternary_blocks(rows, self.block, self.terms, threshold=self.threshold)  # pyright: ignore[reportArgumentType]
        counts = None
        if self.budget is not None:
            more = round((self.budget - 1) * terms.scales[0].numel())
            counts = counts_of_best(terms.gains, more)
        decoded = weight_of(terms.decode(counts), x.shape).to(x.dtype)
        return torch.where(x.isfinite(), decoded, torch.nan)

    @property
    def number_format(self) -> str:
        """``ternary`` of one term; several are no format that has a price: float32."""
        return "ternary" if self.terms == 1 else super().number_format

    def __str__(self) -> str:
        mean = f"{self.budget:g} of " if self.budget is not None else ""
        return f"{mean}{self.terms} ternary terms, blocks of {self.block}"
