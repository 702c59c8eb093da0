"""Floating point: a sign, an exponent and a fraction."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from elision.common.checks import integer, one_of
from elision.formats.base import Coded, Rounding, power_of_two, rounded_to_integer

__all__ = ["Floating"]


@dataclass(frozen=True)
class Floating(Coded):
    """Binary floating point: ``(−1)^s · 1.f · 2^(e − bias)``, code ``s e f``.

    Exponent field 0 holds zero and the subnormals ``0.f · 2^(1 − bias)``.

    Attributes:
        exponent_bits: width of the exponent field, in [1, 8].
        fraction_bits: width of the fraction field, in [1, 23].
        bias: of the exponent.
        specials: ``"ieee"``: the highest exponent encodes infinity (fraction 0) and
            NaN; ``"nan"``: only the highest code encodes NaN, there is no infinity, and
            the other codes of the highest exponent are numbers (OCP E4M3).
        signed: whether there is a sign bit; without one, negative values become NaN.
        subnormals: whether the format has them; without, its smallest positive value
            is ``2^(1 − bias)``, and values below round to it or to zero.
        saturates: values beyond the largest, infinity included, become the largest;
            otherwise infinity, or NaN where there is none.
        dtype: the torch dtype of these codes, if there is one.

    Source: IEEE 754-2019; Open Compute Project, 8-bit Floating Point Specification, 2023.

    Example:
        >>> half = Floating("half", 5, 10, bias=15)
        >>> half.bits, half.largest
        (16, 65504.0)
        >>> hex(half.encode(torch.tensor(-2.0)).item())
        '0xc000'
    """

    exponent_bits: int
    fraction_bits: int
    bias: int
    specials: Literal["ieee", "nan"] = "ieee"
    signed: bool = True
    subnormals: bool = True
    saturates: bool = False
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        integer("Floating", "exponent_bits", self.exponent_bits, "[1, 8]")
        integer("Floating", "fraction_bits", self.fraction_bits, "[1, 23]")
        one_of("Floating", "specials", self.specials, ("ieee", "nan"))

    @property
    def bits(self) -> int:
        """Width of a code: sign, exponent and fraction."""
        return self.signed + self.exponent_bits + self.fraction_bits

    @property
    def largest(self) -> float:
        """The largest finite value."""
        # One code below the highest exponent's first special: all ones but the last bit
        # of the fraction, or all ones below the highest exponent.
        nan = self.specials == "nan"
        exponent = 2**self.exponent_bits - (1 if nan else 2)
        fraction = 2 ** (self.fraction_bits + 1) - (2 if nan else 1)
        return fraction * 2.0 ** (exponent - self.bias - self.fraction_bits)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value of full precision."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest(self) -> float:
        """The smallest positive value."""
        step = 2.0**-self.fraction_bits if self.subnormals else 1.0
        return self.smallest_normal * step

    @property
    def saturating(self) -> "Floating":
        """This format with overflow to the largest value."""
        return replace(self, saturates=True)

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0
    ) -> Tensor:
        """Codes ``s e f`` of the rounded values, int64; every NaN is the quiet one."""
        magnitude = x.double().abs()
        value = self._on_grid(magnitude, rounding, seed)
        negative = torch.signbit(x)
        code = self._magnitude_code(value)
        beyond = value > self.largest
        if self.saturates:
            code = torch.where(beyond, self._magnitude_code(self.largest), code)
        else:
            over = self._infinity if self.specials == "ieee" else self._nan_magnitude
            code = torch.where(beyond, over, code)
        is_nan = x.isnan()
        if self.signed:
            code = code | (negative.long() << (self.bits - 1))
        else:
            is_nan = is_nan | (x < 0)
        return torch.where(is_nan, self._nan_magnitude, code)

    def decode(self, codes: Tensor) -> Tensor:
        """Values of codes ``s e f``, float64."""
        codes = codes.long()
        fraction = codes & (2**self.fraction_bits - 1)
        exponent = (codes >> self.fraction_bits) & (2**self.exponent_bits - 1)
        normal = exponent > 0
        lead = torch.where(normal, 2**self.fraction_bits, 0)
        power = torch.where(normal, exponent, 1) - self.bias - self.fraction_bits
        value = (lead + fraction) * power_of_two(power)
        if not self.subnormals:
            value = torch.where(normal, value, 0.0)
        magnitude = codes & (2 ** (self.exponent_bits + self.fraction_bits) - 1)
        if self.specials == "ieee":
            value = torch.where(magnitude == self._infinity, torch.inf, value)
            value = torch.where(magnitude > self._infinity, torch.nan, value)
        else:
            value = torch.where(magnitude == self._nan_magnitude, torch.nan, value)
        if not self.signed:
            return value
        return torch.where(codes >> (self.bits - 1) & 1 == 1, -value, value)

    def _on_grid(self, magnitude: Tensor, rounding: Rounding, seed: int) -> Tensor:
        """Magnitudes rounded as if the exponent had no upper end."""
        finite = torch.where(magnitude.isfinite(), magnitude, 0.0)
        # frexp: magnitude = m · 2^e with m in [0.5, 1).
        exponent = torch.frexp(finite).exponent.long() - 1
        exponent = torch.where(finite > 0, exponent, 1 - self.bias)
        step = exponent.clamp(min=1 - self.bias) - self.fraction_bits
        if not self.subnormals:
            step = torch.where(exponent < 1 - self.bias, 1 - self.bias, step)
        # Powers of two: both scalings are exact.
        whole = rounded_to_integer(finite * power_of_two(-step), rounding, seed)
        rounded = whole * power_of_two(step)
        if rounding == "zero" and not self.saturates:
            # Towards zero, a finite value never becomes infinity.
            rounded = rounded.clamp(max=self.largest)
        return torch.where(magnitude.isfinite(), rounded, magnitude)

    def _magnitude_code(self, value: Tensor | float) -> Tensor:
        """Exponent and fraction of values on the grid, up to the largest."""
        value = torch.as_tensor(value, dtype=torch.float64)
        value = torch.where(value <= self.largest, value, 0.0)
        exponent = torch.frexp(value).exponent.long() - 1 + self.bias
        exponent = torch.where(value >= self.smallest_normal, exponent, 0)
        step = exponent.clamp(min=1) - self.bias - self.fraction_bits
        whole = (value * power_of_two(-step)).long()
        # The leading one of a normal number adds 1 to the exponent field below it.
        return whole + ((exponent - 1).clamp(min=0) << self.fraction_bits)

    @property
    def _infinity(self) -> int:
        """Code of infinity without its sign, where there is one."""
        return (2**self.exponent_bits - 1) << self.fraction_bits

    @property
    def _nan_magnitude(self) -> int:
        """Code of the quiet NaN without its sign."""
        if self.specials == "nan":
            return 2 ** (self.exponent_bits + self.fraction_bits) - 1
        return self._infinity | 1 << (self.fraction_bits - 1)
