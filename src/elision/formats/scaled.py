"""Formats whose values share scales: by the tensor, the channel or the block."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.formats.base import Coded, Format, Rounding
from elision.formats.grouping import Grouping
from elision.formats.scales import Rule

__all__ = ["Encoded", "Scaled"]


@dataclass(frozen=True)
class Encoded:
    """The bits of a tensor in a format with shared scales.

    Attributes:
        codes: of the elements, int64, of the tensor's shape.
        scales: codes of the numbers that are stored for the groups, one tensor for each
            of :attr:`~elision.formats.scales.Rule.formats`.
    """

    codes: Tensor
    scales: tuple[Tensor, ...]


@dataclass(frozen=True)
class Scaled(Format):
    """Values ``scale · element``; the scale is shared by a group of neighbours.

    The quotient of a value and its scale is rounded to the element's format and clamped
    to its range; it is a float32 number if the value is one of 32 bits or fewer. So is
    the product that takes the element's place. A group of zeros gives zeros.

    Attributes:
        element: format of a value over its scale.
        rule: of the scale.
        grouping: which values share one.

    Example:
        >>> from elision.formats import FORMATS
        >>> FORMATS["dfp8"].round(torch.tensor([1.0, 0.01, -0.3])).tolist()
        [1.0, 0.015625, -0.296875]
    """

    element: Coded
    rule: Rule
    grouping: Grouping

    @property
    def bits(self) -> int:
        """Width of an element's code."""
        return self.element.bits

    @property
    def largest(self) -> float:
        """The largest element."""
        return self.element.largest

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Encoded:
        """Codes of elements and scales."""
        stored = self.rule.fit(self.grouping.split(x, axis), self.element)
        over = self._over(x, self._spread(stored, x.shape, axis))
        return Encoded(self.element.encode(over, rounding, seed), stored)

    def decode(self, encoded: Encoded, axis: int = -1) -> Tensor:
        """Values of the codes, float64."""
        codes = encoded.codes
        return self.element.decode(codes) * self._spread(
            encoded.scales, codes.shape, axis
        )

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Tensor:
        """Values of the format in place of ``x``, in the dtype of ``x``."""
        stored = self.rule.fit(self.grouping.split(x, axis), self.element)
        scale = self._spread(stored, x.shape, axis)
        over = self._over(x, scale)
        return (self.element.round(over, rounding, seed).double() * scale).to(x.dtype)

    def _spread(
        self, stored: tuple[Tensor, ...], shape: torch.Size, axis: int
    ) -> Tensor:
        return self.grouping.spread(self.rule.scale(stored), shape, axis)

    @staticmethod
    def _over(x: Tensor, scale: Tensor) -> Tensor:
        over = x.double() / scale
        return over if x.dtype.itemsize > 4 else over.float()
