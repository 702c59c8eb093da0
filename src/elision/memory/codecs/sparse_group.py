"""Group quantisation of what a ReLU let through, with the bits that its zeros save."""

from dataclasses import dataclass

import torch

from elision.memory.base import Codec, Guarantee, Packed, floating
from elision.memory.bits import unpack_bits
from elision.memory.codecs.compaction import compact, spread
from elision.memory.codecs.group import GROUP, GroupQuant
from elision.memory.layout import Layout, flat
from elision.memory.roles import SMOOTH_ROLES, Slot

__all__ = ["SparseGroupQuant"]

#: Bits of a group's offset and step.
_GRID_BITS = 32


@dataclass(frozen=True)
class SparseGroupQuant(Codec):
    """The result of a ReLU: a bit per element, and its positive values on a finer grid.

    Zeros need no code beside their bit of the mask, so for a share ``p`` of positive
    values and groups of ``G`` there are, in the bytes of :class:`GroupQuant`,

        (bits + 32/G - 1)/p - 32/G

    bits for each of them: six instead of four where half of the values are zero, and a
    quarter of the rounding error. The mask is that of the ReLU. (Zero-value coding of
    JPEG-ACT, ISCA 2020, with the values rounded as in ActNN, ICML 2021.)

    Only for results of ReLUs; one with too few zeros is left to the next codec.

    Attributes:
        bits: the bits per element of the group quantisation whose bytes it may take.
        most: bits that no value needs more than.
        group: values per group.
        rounding: as for :class:`GroupQuant`.

    Raises:
        ValueError: a parameter out of its range.
    """

    bits: int = 4
    most: int = 8
    group: int = GROUP
    rounding: str = "dithered"
    roles = SMOOTH_ROLES

    def __post_init__(self) -> None:
        for bits in (self.bits, self.most):
            self._values(bits)
        if self.most < self.bits:
            raise ValueError(
                f"SparseGroupQuant(bits={self.bits}, most={self.most}): "
                "most must be at least bits"
            )

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``"sparse group 4-bit"``."""
        return f"sparse group {self.bits}-bit"

    @property
    def guarantee(self) -> Guarantee:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the rounding."""
        return self._values(self.bits).guarantee

    def bits_for(self, share: float) -> int:
        """Bits that each value gets where ``share`` of them are positive."""
        grid = _GRID_BITS / self.group
        return min(self.most, int((self.bits + grid - 1) / max(share, 1e-9) - grid))

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the mask and the values; None if too few are zero, or not finite."""
        if not slot.nonnegative or not floating(tensor):
            return None
        mask, kept = compact(flat(tensor))
        bits = self.bits_for(kept.numel() / tensor.numel())
        if not kept.numel() or bits < self.bits:
            return None
        codec = self._values(bits)
        values = codec.pack(
            kept, Slot(slot.function, slot.name, slot.role, seed=slot.seed)
        )
        if values is None:
            return None
        return Packed((mask, *values.payload), Layout.of(tensor), (codec, values))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The values where they were, zeros elsewhere."""
        codec, values = packed.meta
        mask = packed.payload[0]
        numel = packed.layout.numel
        return packed.layout.view(spread(mask, codec.unpack(values), numel))

    def keeps_sign(self, packed: Packed) -> bool:
        """Always."""
        return True

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """The mask."""
        return packed.layout.view(unpack_bits(packed.payload[0], packed.layout.numel))

    def bound(self, packed: Packed) -> float | None:
        """That of the rounding."""
        codec, values = packed.meta
        return codec.bound(values)

    def _values(self, bits: int) -> GroupQuant:
        return GroupQuant(bits, self.group, self.rounding)
