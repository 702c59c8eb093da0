"""Ternary values whose zeros a threshold decides."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.formats.base import Rounding
from elision.formats.scaled import Scaled
from elision.formats.scales import TWN

__all__ = ["Thresholded"]


@dataclass(frozen=True)
class Thresholded(Scaled):
    """Elements −1, 0 and 1: not 0 above 0.7 of the group's mean magnitude.

    This is rounding to nearest; the other roundings are those of the quotient, as in
    every format with a scale.

    Source: Li, Zhang and Liu, Ternary Weight Networks, 2016, equations 5 and 6.

    Example:
        >>> from elision.formats import FORMATS
        >>> x = torch.tensor([1.0, 0.5, -0.25, -1.0])
        >>> FORMATS["ternary-twn"].encode(x).codes.tolist()
        [1, 1, 0, 3]
    """

    def _over(
        self, x: Tensor, stored: tuple[Tensor, ...], rounding: Rounding, axis: int
    ) -> Tensor:
        if rounding != "nearest":
            return super()._over(x, stored, rounding, axis)
        groups = self.grouping.split(x, axis)
        size = torch.where(groups.values.isfinite(), groups.values.abs(), 0.0)
        least = TWN * size.sum(1, keepdim=True) / groups.counts.clamp(min=1)
        least = least.reshape(self.grouping.shape(x.shape, axis))
        kept = x.double().abs() > self.grouping.spread(least, x.shape, axis)
        return torch.where(x.isnan(), x, torch.where(kept, x.sign(), 0.0)).double()
