"""Zero-value coding: a bit per element and the values that are not zero."""

from dataclasses import dataclass

import torch

from elision.memory.codecs.bits import packed_bytes
from elision.memory.codecs.compaction import compact, count_nonzero, spread
from elision.memory.saved.codec import Codec, Guarantee, Packed
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import VALUE_ROLES, Slot

__all__ = ["ZeroValue"]


@dataclass(frozen=True)
class ZeroValue(Codec):
    """Exact: ``1 + bits·(1 - sparsity)`` bits per element (cDMA, JPEG-ACT).

    Worth it for the results of ReLUs and dropout; a tensor that would not shrink is
    left to the next codec. A negative zero is restored as a zero.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.linspace(-1, 1, 1024).relu()
        >>> packed = ZeroValue().pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (2180, 4096)
    """

    name = "zero-value coding"
    guarantee = Guarantee.EXACT
    roles = VALUE_ROLES

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the mask and the non-zero values, in memory order."""
        values = flat(tensor)
        count = count_nonzero(values)
        nbytes = packed_bytes(values.numel(), 1) + count * values.element_size()
        if nbytes >= values.nbytes:
            return None
        return Packed(compact(values, count), Layout.of(tensor))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The saved tensor."""
        mask, kept = packed.payload
        return packed.layout.view(spread(mask, kept, packed.layout.numel))

    def keeps_sign(self, packed: Packed) -> bool:
        """It is exact."""
        return True
