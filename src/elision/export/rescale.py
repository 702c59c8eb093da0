"""A real factor as an integer and a shift, as processors without floating point have it."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Rescale"]

#: Bits of a mantissa without its sign, and the largest shift of a 64-bit product that
#: leaves room for the half that is added before it.
_MANTISSA_BITS, _LARGEST_SHIFT = 31, 62


@dataclass(frozen=True, eq=False)
class Rescale:
    """Factors ``M = m·2^−n``, by which sums of products become codes.

    A sum ``a`` becomes ``(a·m + 2^(n−1)) >> n`` in 64 bits: rounded once, halves up. The
    mantissa has its highest bit set, so that ``m·2^−n`` differs from the factor by at most
    ``2^−31`` of it; factors below ``2^−32`` keep fewer bits.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, CVPR 2018, section 2.2. The paper rounds twice, in
    its doubling product of 32 bits and in the shift.

    Attributes:
        mantissa: int32, one number or one a channel.
        shift: int32, in [1, 62], of the same shape.

    Example:
        >>> half = Rescale.of(torch.tensor([0.5]))
        >>> half.mantissa.item() == 2**30, half.shift.item()
        (True, 31)
        >>> half(torch.tensor([3, -3, 4])).tolist()
        [2, -1, 2]
    """

    mantissa: Tensor
    shift: Tensor

    @classmethod
    def of(cls, factors: Tensor) -> "Rescale":
        """Mantissas and shifts of positive factors below 2^30, each for itself.

        Raises:
            ValueError: a factor is out of range.
        """
        fraction, exponent = torch.frexp(_checked(factors))
        return cls._of(fraction, exponent)

    @classmethod
    def shared(cls, factors: Tensor) -> "Rescale":
        """Mantissas of positive factors below 2^30 that one shift serves, the largest's.

        Raises:
            ValueError: a factor is out of range.
        """
        found = _checked(factors)
        _, exponent = torch.frexp(found.max())
        return cls._of(found * 2.0 ** -exponent.double(), exponent.expand(found.shape))

    @classmethod
    def _of(cls, fraction: Tensor, exponent: Tensor) -> "Rescale":
        mantissa = torch.round(fraction * 2.0**_MANTISSA_BITS).long()
        shift = _MANTISSA_BITS - exponent.long()
        # Rounding may carry into a bit that int32 lacks; what is too small loses bits.
        excess = (shift - _LARGEST_SHIFT).clamp(min=0)
        if bool((mantissa == 2**_MANTISSA_BITS).any()):
            excess = excess.clamp(min=1)
        half = torch.where(excess > 0, 1 << (excess - 1).clamp(min=0), 0)
        mantissa = (mantissa + half) >> excess
        return cls(mantissa.int(), (shift - excess).int())

    def __call__(self, sums: Tensor) -> Tensor:
        """Rescaled int64 of integer sums, which the factors broadcast against."""
        shift = self.shift.long()
        return (sums.long() * self.mantissa.long() + (1 << (shift - 1))) >> shift

    @property
    def factors(self) -> Tensor:
        """The factors that mantissas and shifts stand for, float64."""
        return self.mantissa.double() * 2.0 ** -self.shift.double()


def _checked(factors: Tensor) -> Tensor:
    found = factors.double()
    if not bool(((found > 0) & (found < 2.0**30)).all()):
        raise ValueError(
            f"Rescale({found.flatten().tolist()[:4]}): factors must be in (0, 2^30)"
        )
    return found
