"""Group quantisation with the fewest bits that an error bound allows."""

from dataclasses import dataclass, replace

import torch

from elision.common.checks import number, one_of
from elision.memory.codecs.group import GroupQuant, group_ranges
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["ErrorBounded"]


@dataclass(frozen=True)
class ErrorBounded(Codec):
    """Group quantisation with the fewest bits that keep every ``|x̂ - x| <= limit``.

    A tensor that would need more than 8 bits is not packed.

    Attributes:
        limit: largest absolute error of an element, positive.
        rounding: ``"nearest"``, or ``"dithered"`` for an unbiased result.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.linspace(-1, 1, 1024)
        >>> packed = ErrorBounded(0.1).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (192, 4096)
    """

    limit: float
    rounding: str = "nearest"
    name = "error bounded"
    roles = SMOOTH_ROLES

    def __post_init__(self) -> None:
        number("ErrorBounded", "limit", self.limit, "(0, inf]")
        one_of("ErrorBounded", "rounding", self.rounding, ("nearest", "dithered"))

    @property
    def guarantee(self) -> Guarantee:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Bounded; unbiased too with dithered rounding."""
        return Guarantee.BOUNDED if self.rounding == "nearest" else Guarantee.UNBIASED

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Quantise with the fewest bits, 1 to 8; None if 8 bits exceed the bound."""
        if not floating(tensor):
            return None
        # The bound is one of the values as they are, not in a norm's units.
        plain = replace(slot, node=None)
        widest = float(group_ranges(flat(tensor)).max())
        steps = widest / (2 * self.limit)
        for bits in range(1, 9):
            # A ReLU's zeros take one level away; a range counts from its minimum there.
            levels = 2**bits - (2 if slot.nonnegative and bits > 1 else 1)
            if levels < steps:
                continue
            packed = GroupQuant(bits, rounding=self.rounding).pack(tensor, plain)
            assert packed is not None
            if packed.meta.bound <= self.limit:
                return Packed(packed.payload, packed.layout, (bits, packed))
        return None

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The grid points."""
        return self._codec(packed).unpack(self._inner(packed))

    def keeps_sign(self, packed: Packed) -> bool:
        """As group quantisation does."""
        return self._codec(packed).keeps_sign(self._inner(packed))

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """As group quantisation does."""
        return self._codec(packed).unpack_sign(self._inner(packed))

    def bound(self, packed: Packed) -> float | None:
        """Error bound of this tensor, at most ``limit``."""
        return packed.meta[1].meta.bound

    def _inner(self, packed: Packed) -> Packed:
        return packed.meta[1].holding(packed.payload)

    def _codec(self, packed: Packed) -> GroupQuant:
        return GroupQuant(packed.meta[0], rounding=self.rounding)
