"""Integers in the narrowest type that holds their values."""

from dataclasses import dataclass

import torch

from elision.memory.saved.codec import Codec, Guarantee, Packed
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import Role, Slot

__all__ = ["NarrowInteger"]

_RANGES = {
    torch.uint8: (0, 2**8 - 1),
    torch.int8: (-(2**7), 2**7 - 1),
    torch.int16: (-(2**15), 2**15 - 1),
    torch.int32: (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True)
class NarrowInteger(Codec):
    """Exact for integers (token ids, labels, indices): int64 to 1, 2 or 4 bytes.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("GatherBackward0", "index", Role.INTEGER)
        >>> x = torch.arange(100)
        >>> packed = NarrowInteger().pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (100, 800)
    """

    name = "narrow integer"
    guarantee = Guarantee.EXACT
    roles = frozenset({Role.INTEGER})

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the values in the narrowest type; None where that saves nothing."""
        if tensor.numel() == 0:
            return None
        low, high = (int(v) for v in torch.aminmax(tensor))
        fits = (t for t, (a, b) in _RANGES.items() if a <= low and high <= b)
        dtype = next(fits, tensor.dtype)
        if dtype.itemsize >= tensor.dtype.itemsize:
            return None
        return Packed((flat(tensor).to(dtype),), Layout.of(tensor))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The saved tensor."""
        return packed.layout.view(packed.payload[0])
