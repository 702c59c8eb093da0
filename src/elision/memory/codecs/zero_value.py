"""Zero-value coding: a bit per element and the values that are not zero."""

from dataclasses import dataclass

import torch

from elision.memory.base import Codec, Guarantee, Packed
from elision.memory.bits import pack_bits, unpack_bits
from elision.memory.layout import Layout, flat
from elision.memory.roles import SMOOTH_ROLES, Slot

__all__ = ["ZeroValue"]


@dataclass(frozen=True)
class ZeroValue(Codec):
    """Exact: ``1 + bits·(1 - sparsity)`` bits per element (cDMA, JPEG-ACT).

    Worth it for the results of ReLUs and dropout; a tensor that would not shrink is
    left to the next codec. A negative zero is restored as a zero.
    """

    name = "zero-value coding"
    guarantee = Guarantee.EXACT
    roles = SMOOTH_ROLES

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the mask and the non-zero values, in memory order."""
        values = flat(tensor)
        mask = values != 0
        kept = values[mask]
        if kept.nbytes + values.numel() // 8 >= values.nbytes:
            return None
        return Packed((pack_bits(mask), kept), Layout.of(tensor))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The saved tensor."""
        bits, kept = packed.payload
        mask = unpack_bits(bits, packed.layout.numel)
        values = torch.zeros(
            packed.layout.numel, dtype=kept.dtype, device=kept.device
        ).masked_scatter_(mask, kept)
        return packed.layout.view(values)

    def keeps_sign(self, packed: Packed) -> bool:
        """It is exact."""
        return True
