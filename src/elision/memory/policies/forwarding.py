"""Policies that let another one decide, and do something beside it."""

import torch

from elision.memory.policies.base import Policy
from elision.memory.saved.codec import Codec, Packed
from elision.memory.saved.roles import Slot

__all__ = ["Forwarding"]


class Forwarding(Policy):
    """Another policy's decisions; subclasses change what they are to change.

    Args:
        inner: decides.
        name: for the report; None: the other's.
    """

    def __init__(self, inner: Policy, name: str | None = None) -> None:
        super().__init__(exact=False, name=name or inner.name)
        self.inner = inner

    @property
    def offloads(self) -> bool:
        """True if the other policy has a codec that offloads."""
        return self.inner.offloads

    def begin(self) -> None:
        """A new step for the other policy."""
        self.inner.begin()

    def watch(self, slot: Slot) -> None:
        """Pass every consumer on."""
        self.inner.watch(slot)

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """The other policy's codecs."""
        return self.inner.codecs_for(slot, tensor)

    def chosen(self, slot: Slot, codec: Codec | None) -> None:
        """Pass every decision on."""
        self.inner.chosen(slot, codec)

    def packed(self, slot: Slot, packed: Packed) -> Packed:
        """What the other policy keeps."""
        return self.inner.packed(slot, packed)

    def notes(self) -> list[str]:
        """The other policy's notes."""
        return self.inner.notes()
