"""Whole numbers, whose unit is a shared scale or a fixed power of two."""

from dataclasses import dataclass

from torch import Tensor

from elision.common.checks import integer
from elision.formats.base import Coded, Rounding, rounded_to_integer

__all__ = ["Integer"]


@dataclass(frozen=True)
class Integer(Coded):
    """Whole numbers times a fixed unit, in two's complement; beyond the range, its end.

    Attributes:
        width: bits of a code, in [1, 16].
        signed: whether the codes are two's complement; otherwise from 0 up.
        symmetric: leaves out the lowest number of a signed format, so that the range is
            that of its negative.
        point: bits after the binary point: the unit is ``2^−point``.

    NaN has no code. :meth:`round` leaves it NaN, :meth:`encode` refuses it.

    Example:
        >>> import torch
        >>> Integer("int4", 4).round(torch.tensor([2.5, -100.0])).tolist()
        [2.0, -7.0]
    """

    width: int
    signed: bool = True
    symmetric: bool = True
    point: int = 0

    def __post_init__(self) -> None:
        integer("Integer", "width", self.width, "[1, 16]")
        integer("Integer", "point", self.point, "[0, 16]")

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.width

    @property
    def most(self) -> int:
        """The largest number, in units."""
        return 2 ** (self.width - self.signed) - 1

    @property
    def least(self) -> int:
        """The smallest number, in units."""
        if not self.signed:
            return 0
        return -self.most - (not self.symmetric)

    @property
    def largest(self) -> float:
        """The largest value."""
        return self.most * 2.0**-self.point

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0
    ) -> Tensor:
        """Two's complement of the rounded and clamped numbers, int64.

        Raises:
            ValueError: NaN, or an unknown rounding.
        """
        if x.isnan().any():
            raise ValueError(f"{self.name}.encode: NaN has no code in this format")
        return self._units(x, rounding, seed).long() & (2**self.width - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Values of the codes, float64."""
        codes = codes.long()
        if self.signed:
            codes = codes - ((codes >> (self.width - 1) & 1) << self.width)
        return codes.double() * 2.0**-self.point

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Tensor:
        """Values of the format in place of ``x``; NaN stays NaN, zero has no sign."""
        del axis
        return (self._units(x, rounding, seed) * 2.0**-self.point).to(x.dtype)

    def _units(self, x: Tensor, rounding: Rounding, seed: int) -> Tensor:
        """Whole numbers, float64, in [least, most]; NaN where ``x`` is."""
        scaled = x.double() * 2.0**self.point
        whole = rounded_to_integer(scaled.abs(), rounding, seed)
        # Adding zero takes the sign off a zero: there is one zero.
        return whole.copysign(scaled).clamp(self.least, self.most) + 0.0
