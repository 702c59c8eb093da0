"""One bit per element for tensors of two values: booleans and dropout masks."""

from dataclasses import dataclass

import torch

from elision.memory.codecs.bits import pack_bits, unpack_bits
from elision.memory.codecs.traced import TracedMask
from elision.memory.saved.codec import Codec, Guarantee, Packed, TracedCodec
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import Role, Slot

__all__ = ["TwoValued"]


@dataclass(frozen=True)
class TwoValued(Codec):
    """Exact for a tensor of zeros and one other value: 1 bit per element.

    On the CPU, dropout is a product with a floating mask of 0 and 1/(1 - p), saved
    whole, and attention adds one of 0 and minus infinity to its logits. That a factor
    has only two values is verified, not assumed: any other tensor is left as it is.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("MulBackward0", "other", Role.BOOLEAN)
        >>> x = torch.arange(1024) % 2 == 0
        >>> packed = TwoValued().pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (128, 1024)
    """

    name = "two-valued"
    guarantee = Guarantee.EXACT
    roles = frozenset({Role.FACTOR, Role.BOOLEAN})

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep where the tensor is not zero, and the one value it has there."""
        values = flat(tensor)
        if tensor.dtype is torch.bool:
            return Packed((pack_bits(values),), Layout.of(tensor), True)
        if tensor.is_complex():
            return None
        # A prefix rules out almost every tensor of many values at once.
        for part in (values[:64], values):
            low, high = torch.aminmax(part)
            value = low if high == 0 else high
            if not bool(((part == 0) | (part == value)).all()):
                return None
        signed = torch.signbit(values)
        if signed.any() and (signed & (values == 0)).any():
            return None  # a negative zero would lose its sign
        both = torch.stack((torch.zeros_like(value), value))
        return Packed((pack_bits(values != 0),), Layout.of(tensor), both)

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The saved tensor."""
        mask = unpack_bits(packed.payload[0], packed.layout.numel)
        if packed.layout.dtype is torch.bool:
            return packed.layout.view(mask)
        # Selected rather than multiplied: zero times an infinity is no zero.
        outside, inside = packed.meta
        return packed.layout.view(torch.where(mask, inside, outside))

    def traced(self, relu: bool) -> TracedCodec | None:
        """One bit per element."""
        del relu
        return TracedMask()
