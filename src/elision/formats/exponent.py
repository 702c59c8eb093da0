"""Powers of two as codes of their own: the scales of block formats."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import integer
from elision.formats.base import Coded, Rounding, power_of_two, rounded_to_integer

__all__ = ["E8M0", "Exponent"]


@dataclass(frozen=True)
class Exponent(Coded):
    """Positive powers of two, ``2^(code − bias)``; the highest code is NaN.

    There is no zero and no sign: what is not above the smallest value becomes it, and
    negative numbers become NaN, as does infinity; finite values beyond the largest
    become the largest. What lies half-way between two values goes to the larger.

    Attributes:
        width: bits of a code, in [2, 8].

    Source: OCP Microscaling Formats (MX) Specification v1.0, 2023, section 5.4.1.

    Example:
        >>> E8M0.encode(torch.tensor([1.0, 0.3])).tolist()
        [127, 125]
    """

    width: int

    def __post_init__(self) -> None:
        integer("Exponent", "width", self.width, "[2, 8]")

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.width

    @property
    def bias(self) -> int:
        """The code of one."""
        return 2 ** (self.width - 1) - 1

    @property
    def largest(self) -> float:
        """The largest value."""
        return 2.0**self.bias

    @property
    def smallest(self) -> float:
        """The smallest value."""
        return 2.0**-self.bias

    @property
    def has_nan(self) -> bool:
        """True: the highest code."""
        return True

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0
    ) -> Tensor:
        """Exponents and the bias, int64."""
        x = x.double()
        within = x.clamp(self.smallest, self.largest)
        below = torch.where(x.isnan(), 1.0, within)
        low = torch.frexp(below).exponent.long() - 1
        share = below * power_of_two(-low)  # in [1, 2)
        up = rounded_to_integer(share, rounding, seed) - 1
        code = (low + self.bias + up.long()).clamp(max=2 * self.bias)
        return torch.where((x >= 0) & x.isfinite(), code, 2**self.width - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Powers of two, float64."""
        codes = codes.long()
        value = power_of_two(codes - self.bias)
        return torch.where(codes == 2**self.width - 1, torch.nan, value)


#: The scale of the MX formats: 2^−127 to 2^127.
E8M0 = Exponent("e8m0", 8)
