"""Group quantisation of the non-zero values, with the bits that the zeros save."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from elision.common.checks import integer
from elision.memory.codecs.bits import unpack_bits
from elision.memory.codecs.compaction import compact, count_nonzero, spread
from elision.memory.codecs.group import GROUP, GroupQuant
from elision.memory.codecs.units import units_of
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["SparseGroupQuant"]

#: Bits of a group's offset and step.
_GRID_BITS = 32

#: Bytes that a finer grid may take, over those of the group quantisation.
_MORE = 9 / 8


class _Meta(NamedTuple):
    """Packing of the non-zero values.

    Attributes:
        codec: by this codec.
        values: in this form.
        nonnegative: whether none is below zero.
    """

    codec: GroupQuant
    values: Packed
    nonnegative: bool


@dataclass(frozen=True)
class SparseGroupQuant(Codec):
    """A tensor with zeros: a bit per element, and the other values on a finer grid.

    Zeros need no code beside their bit of the mask, so for a share ``p`` of other values
    and groups of ``G`` there are, in the bytes of :class:`GroupQuant`,

        (bits + 32/G - 1)/p - 32/G

    bits for each of them: six instead of four where half of a ReLU's result is zero, and
    a quarter of the rounding error. Where that leaves no bit more than ``bits``, one more
    is given if it takes at most an eighth more bytes: it costs ``p`` of a bit per element
    only. The mask is also that of the ReLU. (Zero-value coding of JPEG-ACT, ISCA 2020,
    with the values rounded as in ActNN, ICML 2021; the eighth is this project's own
    choice.)

    A tensor with too few zeros is left to the next codec; so is a norm's input that needs
    units of its own (see :mod:`elision.memory.codecs.units`).

    Attributes:
        bits: the bits per element of the group quantisation whose bytes it may take,
            or an eighth more.
        most: largest number of bits per value.
        group: values per group.
        rounding: as for :class:`GroupQuant`.

    Raises:
        ValueError: a parameter out of its range.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT, nonnegative=True)
        >>> x = torch.linspace(-1, 1, 1024).relu()
        >>> packed = SparseGroupQuant(4).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (544, 4096)
    """

    bits: int = 4
    most: int = 8
    group: int = GROUP
    rounding: str = "dithered"
    roles = SMOOTH_ROLES
    optional_in_graphs = True

    def __post_init__(self) -> None:
        integer("SparseGroupQuant", "bits", self.bits, "[1, 8]")
        integer("SparseGroupQuant", "most", self.most, f"[{self.bits}, 8]")
        self._values(self.bits)  # checks group and rounding

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``"sparse group 4-bit"``."""
        return f"sparse group {self.bits}-bit"

    @property
    def guarantee(self) -> Guarantee:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the rounding."""
        return self._values(self.bits).guarantee

    def bits_for(self, share: float) -> int:
        """Bits that each value gets where ``share`` of them are not zero."""
        grid = _GRID_BITS / self.group
        budget, share = self.bits + grid, max(share, 1e-9)
        bits, finer = int((budget - 1) / share - grid), self.bits + 1
        if bits < finer and 1 + share * (finer + grid) <= _MORE * budget:
            bits = finer
        return min(self.most, bits)

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the mask and the values; None if too few are zero, or not finite."""
        if units_of(slot, tensor, self.group) is not None:
            return None
        values = flat(tensor)
        count = count_nonzero(values)
        share = count / max(values.numel(), 1)
        bits = self.bits_for(share)
        if not count or bits < self.bits or not floating(tensor):
            return None
        codec = self._values(bits)
        mask, kept = compact(values, count)
        where = Slot(slot.function, slot.name, slot.role, seed=slot.seed)
        packed = codec.pack(kept, where)
        if packed is None:
            return None
        meta = _Meta(codec, packed, slot.nonnegative)
        return Packed((mask, *packed.payload), Layout.of(tensor), meta)

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The values where they were, zeros elsewhere."""
        codec, values, _ = packed.meta
        mask, *payload = packed.payload
        kept = codec.unpack(values.holding(payload))
        return packed.layout.view(spread(mask, kept, packed.layout.numel))

    def keeps_sign(self, packed: Packed) -> bool:
        """True for a ReLU's result, whose non-zero values are positive."""
        return packed.meta.nonnegative

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """The mask."""
        return packed.layout.view(unpack_bits(packed.payload[0], packed.layout.numel))

    def bound(self, packed: Packed) -> float | None:
        """That of the rounding."""
        return packed.meta.codec.bound(packed.meta.values)

    def _values(self, bits: int) -> GroupQuant:
        return GroupQuant(bits, self.group, self.rounding)
