"""Packed tensors with a checksum: a flipped bit is found before it is unpacked."""

import dataclasses

import torch

from elision.memory.codecs import Offload
from elision.memory.policies.base import Policy
from elision.memory.policies.forwarding import Forwarding
from elision.memory.saved.checksum import Checksum
from elision.memory.saved.codec import Codec, Packed
from elision.memory.saved.roles import Slot

__all__ = ["Checked"]


class Checked(Forwarding):
    """Another policy, whose packed tensors have checksums.

    The bytes are read once when they are packed and once before they are unpacked; what
    differs raises :class:`~elision.memory.DamagedError`, which names the tensor and the
    module. Tensors that the policy keeps as they are have none: the optimiser, the model
    and the caller hold the same memory.

    Args:
        inner: decides how tensors are packed.

    Example:
        >>> from torch import nn
        >>> from elision.memory import saver
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        >>> with saver(model, "checked(bits(4))"):
        ...     loss = model(torch.randn(128, 64)).square().mean()
        >>> loss.backward()
    """

    def __init__(self, inner: Policy) -> None:
        super().__init__(inner, f"checked({inner.name})")

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """The other policy's codecs; one that offloads checks what it brings back."""
        return tuple(
            dataclasses.replace(codec, checked=True)
            if isinstance(codec, Offload)
            else codec
            for codec in super().codecs_for(slot, tensor)
        )

    def chosen(self, slot: Slot, codec: Codec | None) -> None:
        """Pass every decision on, by the codec that the other policy gave."""
        if isinstance(codec, Offload):
            codec = dataclasses.replace(codec, checked=False)
        super().chosen(slot, codec)

    def packed(self, slot: Slot, packed: Packed) -> Packed:
        """The packed form with the checksum of its bytes."""
        packed = super().packed(slot, packed)
        if not packed.payload:
            return packed
        shape = packed.layout.shape
        checksum = Checksum.of(packed.payload, slot, shape)
        return dataclasses.replace(packed, checksum=checksum)
