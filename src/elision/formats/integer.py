"""Whole numbers of a fixed unit; of a larger range with a shared scale."""

from dataclasses import dataclass

from torch import Tensor

from elision.common.checks import integer
from elision.formats.base import Coded, Rounding, refuse_nan, rounded_to_integer

__all__ = ["Integer"]


@dataclass(frozen=True)
class Integer(Coded):
    """Whole numbers times ``2^−point``; what lies beyond the range becomes its end.

    Zero has no sign. NaN has no code: :meth:`round` leaves it NaN, :meth:`encode`
    refuses it.

    Attributes:
        width: bits of a code, in [1, 16].
        signed: whether there are negative numbers; otherwise the codes count from 0.
        symmetric: leaves out the lowest number of two's complement, so that the range
            is that of its negative.
        point: bits after the binary point.
        sign_magnitude: codes are a sign and a magnitude, not two's complement.

    Example:
        >>> import torch
        >>> number = Integer("int4", 4)
        >>> number.round(torch.tensor([2.5, -100.0])).tolist()
        [2.0, -7.0]
        >>> number.encode(torch.tensor([2.5, -1.0])).tolist()
        [2, 15]
    """

    width: int
    signed: bool = True
    symmetric: bool = True
    point: int = 0
    sign_magnitude: bool = False

    def __post_init__(self) -> None:
        integer("Integer", "width", self.width, "[2, 16]" if self.signed else "[1, 16]")
        integer("Integer", "point", self.point, "[0, 16]")

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.width

    @property
    def most(self) -> int:
        """The largest number, in units of ``2^−point``."""
        return 2 ** (self.width - self.signed) - 1

    @property
    def least(self) -> int:
        """The smallest number, in units of ``2^−point``."""
        if not self.signed:
            return 0
        return -self.most - (not self.symmetric and not self.sign_magnitude)

    @property
    def largest(self) -> float:
        """The largest value."""
        return self.most * 2.0**-self.point

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0
    ) -> Tensor:
        """Codes of the rounded and clamped numbers, int64.

        Raises:
            ValueError: NaN, or an unknown rounding.
        """
        refuse_nan(self, x)
        scaled = x.double() * 2.0**self.point
        whole = nearby_integer(scaled, rounding, seed).clamp(self.least, self.most)
        units = whole.long()
        if self.sign_magnitude:
            return units.abs() | (units < 0).long() << (self.width - 1)
        return units & (2**self.width - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Values of the codes, float64."""
        codes = codes.long()
        if self.signed:
            top = codes >> (self.width - 1) & 1
            if self.sign_magnitude:
                codes = (codes & self.most) * (1 - 2 * top)
            else:
                codes = codes - (top << self.width)
        return codes.double() * 2.0**-self.point


def nearby_integer(x: Tensor, rounding: Rounding, seed: int) -> Tensor:
    """Whole numbers in place of float64 values of either sign, infinity included.

    Example:
        >>> import torch
        >>> nearby_integer(torch.tensor([-2.5, 1.6]).double(), "zero", 0).tolist()
        [-2.0, 1.0]
    """
    return rounded_to_integer(x.abs(), rounding, seed).copysign(x)
