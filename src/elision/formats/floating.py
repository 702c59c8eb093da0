"""Floating point: a sign, an exponent and a fraction."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from elision.common.checks import integer, one_of
from elision.formats.base import (
    Coded,
    Rounding,
    power_of_two,
    refuse_nan,
    rounded_to_integer,
)

__all__ = ["Floating"]


@dataclass(frozen=True)
class Floating(Coded):
    """Binary floating point: ``(−1)^s · 1.f · 2^(e − bias)``, code ``s e f``.

    Exponent field 0 holds zero and the subnormals ``0.f · 2^(1 − bias)``. Without
    fraction bits, the values are zero and powers of two, and what lies half-way between
    two powers goes to the larger, as with torch's and ml_dtypes' E8M0; half of the
    smallest power becomes zero.

    Attributes:
        exponent_bits: width of the exponent field, in [1, 8].
        fraction_bits: width of the fraction field, in [0, 23].
        bias: of the exponent.
        specials: ``"ieee"``: the highest exponent encodes infinity (fraction 0) and
            NaN; ``"nan"``: only the highest code encodes NaN, there is no infinity, and
            the other codes of the highest exponent are numbers (OCP E4M3); ``"fnuz"``:
            the code of a negative zero encodes NaN, there is neither an infinity nor a
            negative zero; ``"finite"``: every code is a number, and values beyond the
            largest become the largest (OCP FP6 and FP4).
        signed: whether there is a sign bit; without one, negative values become NaN.
        subnormals: whether the format has them; without, its smallest positive value
            is ``2^(1 − bias)``, and values below round to it or to zero.
        saturates: values beyond the largest, infinity included, become the largest;
            otherwise infinity, or NaN where there is none.
        dtype: the torch dtype of these codes, if there is one.

    NaN has no code where ``specials`` is ``"finite"``: :meth:`round` leaves it NaN,
    :meth:`encode` refuses it.

    Raises:
        ValueError: a width out of range, or one that leaves no code for the specials.

    Source: IEEE 754-2019; Open Compute Project, 8-bit Floating Point Specification, 2023,
    and Microscaling Formats Specification, 2023, section 5.3; Noune et al., 8-bit
    Numerical Formats for Deep Neural Networks, arXiv 2206.02915, for FNUZ.

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
    specials: Literal["ieee", "nan", "fnuz", "finite"] = "ieee"
    signed: bool = True
    subnormals: bool = True
    saturates: bool = False
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        ieee = self.specials == "ieee"
        least = "[2, 8]" if ieee else "[1, 8]"
        integer("Floating", "exponent_bits", self.exponent_bits, least)
        least = "[1, 23]" if ieee or self.exponent_bits == 1 else "[0, 23]"
        integer("Floating", "fraction_bits", self.fraction_bits, least)
        # Own bounds, within which every step of the arithmetic is a float64.
        integer("Floating", "bias", self.bias, "[-256, 512]")
        allowed = ("ieee", "nan", "fnuz", "finite")[: 4 if self.signed else 2]
        one_of("Floating", "specials", self.specials, allowed)

    @property
    def bits(self) -> int:
        """Width of a code: sign, exponent and fraction."""
        return self.signed + self.exponent_bits + self.fraction_bits

    @property
    def has_nan(self) -> bool:
        """Whether a code stands for NaN."""
        return self.specials != "finite"

    @property
    def largest(self) -> float:
        """The largest finite value."""
        exponent = self._largest_code >> self.fraction_bits
        fraction = self._largest_code & (2**self.fraction_bits - 1)
        whole = fraction + (2**self.fraction_bits if exponent else 0)
        return whole * 2.0 ** (max(exponent, 1) - self.bias - self.fraction_bits)

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
    def saturating(self) -> Self:
        """This format with overflow to the largest value."""
        return replace(self, saturates=True)

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0
    ) -> Tensor:
        """Codes ``s e f`` of the rounded values, int64; every NaN is the quiet one.

        Raises:
            ValueError: an unknown rounding, or NaN where it has no code.
        """
        if not self.has_nan:
            refuse_nan(self, x)
        value = self._on_grid(x.double().abs(), rounding, seed)
        code = self._magnitude_code(value)
        beyond = value > self.largest
        if self.saturates or self.specials == "finite":
            code = torch.where(beyond, self._largest_code, code)
        elif self.specials == "ieee":
            code = torch.where(beyond, self._infinity, code)
        is_nan = x.isnan()
        if self.specials in ("nan", "fnuz") and not self.saturates:
            is_nan = is_nan | beyond
        if self.signed:
            negative = torch.signbit(x)
            if self.specials == "fnuz":
                negative = negative & (code > 0)
            code = code | (negative.long() << (self.bits - 1))
        else:
            is_nan = is_nan | (x < 0)
        return torch.where(is_nan, self._nan, code) if self.has_nan else code

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
        elif self.specials == "nan":
            value = torch.where(magnitude == self._nan, torch.nan, value)
        elif self.specials == "fnuz":
            value = torch.where(codes == self._nan, torch.nan, value)
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
        if rounding == "zero":
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
    def _largest_code(self) -> int:
        """Code of the largest finite value."""
        if self.specials == "ieee":
            return self._infinity - 1
        most = 2 ** (self.exponent_bits + self.fraction_bits) - 1
        return most - 1 if self.specials == "nan" else most

    @property
    def _nan(self) -> int:
        """Code of the quiet NaN, where there is one."""
        if self.specials == "ieee":
            return self._infinity | 1 << (self.fraction_bits - 1)
        if self.specials == "nan":
            return self._largest_code + 1
        return 1 << (self.bits - 1)
