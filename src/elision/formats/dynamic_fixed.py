"""Arithmetic of dynamic fixed point: integers of a tensor with one exponent.

Source: Das et al., Mixed Precision Training of Convolutional Neural Networks using Integer
Operations, ICLR 2018 (arXiv 1802.00930), section 3. A tensor ``f`` is ``i·2^e``: with ``E``
the exponent of ``max|f|``, ``e = E − (P − 2)`` and ``i = round(f·2^−e)``, clamped to
``P`` bits. The formats ``dfp16``, ``dfp12`` and ``dfp8`` hold such tensors as codes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import integer
from elision.formats.base import Rounding
from elision.formats.integer import Integer
from elision.formats.naming import format_named
from elision.formats.scaled import Scaled

__all__ = ["DynamicFixed"]


@dataclass(frozen=True)
class DynamicFixed:
    """A tensor of integers and its exponent: ``values = integers · 2^exponent``.

    Attributes:
        integers: int64, of any shape.
        exponent: of the unit.

    Example:
        >>> half = DynamicFixed.of(torch.tensor([0.5, -0.25]), bits=8)
        >>> half.integers.tolist(), half.exponent
        ([64, -32], -7)
        >>> (half * half).values().tolist()
        [0.25, 0.0625]
    """

    integers: Tensor
    exponent: int

    @staticmethod
    def of(
        x: Tensor, bits: int, rounding: Rounding = "nearest", seed: int = 0
    ) -> "DynamicFixed":
        """A tensor in ``bits`` bits.

        Args:
            x: floating-point values.
            bits: 8, 12 or 16.
            rounding: see :data:`~elision.formats.base.Rounding`.
            seed: of stochastic rounding.

        Raises:
            ValueError: other widths, or NaN.
        """
        format = format_named(f"dfp{bits}")
        assert isinstance(format, Scaled)
        assert isinstance(format.element, Integer)
        encoded = format.encode(x, rounding, seed)
        point = format.element.point
        integers = (format.element.decode(encoded.codes) * 2.0**point).long()
        exponent = torch.frexp(format.rule.scale(encoded.scales)).exponent
        return DynamicFixed(integers, int(exponent) - 1 - point)

    def values(self) -> Tensor:
        """The numbers, float64; exact while an integer has 53 bits or fewer."""
        return self.integers.double() * 2.0**self.exponent

    def __mul__(self, other: "DynamicFixed") -> "DynamicFixed":
        """Element-wise product, exact: ``i_a·i_b``, exponent ``e_a + e_b``."""
        return DynamicFixed(
            self.integers * other.integers, self.exponent + other.exponent
        )

    def __matmul__(self, other: "DynamicFixed") -> "DynamicFixed":
        """Matrix product, exact while its sums fit in int64: exponent ``e_a + e_b``."""
        return DynamicFixed(
            self.integers @ other.integers, self.exponent + other.exponent
        )

    def __add__(self, other: "DynamicFixed") -> "DynamicFixed":
        """Sum: the operand of the smaller exponent is shifted right, which rounds down.

        With ``e_a ≥ e_b`` the integers are ``i_a + (i_b >> (e_a − e_b))``, exponent ``e_a``.
        """
        top = max(self.exponent, other.exponent)
        # Shifts of 63 bits and more have the same result.
        shifts = [min(top - part.exponent, 63) for part in (self, other)]
        parts = (self.integers >> shifts[0], other.integers >> shifts[1])
        return DynamicFixed(parts[0] + parts[1], top)

    def narrowed(self, bits: int) -> "DynamicFixed":
        """The tensor in ``bits`` bits: shifted right by the fewest bits that fit it.

        With a shift ``R``, the integers are ``i >> R``, the exponent is ``e + R``: what is
        done to the int32 sums of a product before the next layer reads them.

        Raises:
            ValueError: fewer than 2 bits.
        """
        integer("narrowed", "bits", bits, ">= 2")
        # In two's complement i needs no more bits than its complement −i − 1.
        sizes = torch.where(self.integers < 0, ~self.integers, self.integers)
        most = int(sizes.max()) if sizes.numel() else 0
        shift = max(most.bit_length() + 1 - bits, 0)
        return DynamicFixed(self.integers >> shift, self.exponent + shift)
