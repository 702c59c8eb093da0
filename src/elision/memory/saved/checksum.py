"""Checksums of a packed tensor: its bytes are what was packed, or the consumer is told."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from elision.memory.saved.layout import dense_part
from elision.memory.saved.roles import Slot
from elision.memory.saved.tag import content_tag

__all__ = ["Checksum", "DamagedError"]


class DamagedError(RuntimeError):
    """Bytes of a saved tensor changed between the forward and the backward pass."""


@dataclass(frozen=True)
class Checksum:
    """Tags of the tensors that hold one saved tensor, and whose it is.

    A tag is 64 bits (:mod:`elision.memory.saved.tag`): it finds every change inside of one
    word of at most 32 bits, hence every single flip, and any other but for one in 2**64 by
    chance.

    Attributes:
        what: the saved tensor in words: consumer, shape, module.
        tags: one a tensor of the payload.

    Example:
        >>> from elision.memory.saved.roles import Role
        >>> slot = Slot("AddmmBackward0", "mat1", Role.LINEAR_INPUT, "fc")
        >>> x = torch.ones(4)
        >>> checksum = Checksum.of([x], slot, (4,))
        >>> checksum.verify([x])
        >>> x[2] = 1.5
        >>> checksum.verify([x])
        Traceback (most recent call last):
        elision.memory.saved.checksum.DamagedError: saved tensor Addmm.mat1 of shape (4,) in \
module 'fc': its packed bytes changed since the forward pass; repeat the step
    """

    what: str
    tags: tuple[int, ...]

    @classmethod
    def of(
        cls, payload: Iterable[torch.Tensor], slot: Slot, shape: tuple[int, ...]
    ) -> "Checksum":
        """The checksum of a payload.

        Args:
            payload: the tensors.
            slot: whose tensor they hold.
            shape: of that tensor.
        """
        what = f"{slot.consumer} of shape {shape} in module {slot.module!r}"
        return cls(what, _tags(payload))

    def verify(self, payload: Iterable[torch.Tensor]) -> None:
        """Raise unless the tensors are what they were.

        Raises:
            DamagedError: they are not; whose they are is named.
        """
        if _tags(payload) != self.tags:
            raise DamagedError(
                f"saved tensor {self.what}: its packed bytes changed since the forward "
                "pass; repeat the step"
            )


def _tags(payload: Iterable[torch.Tensor]) -> tuple[int, ...]:
    return tuple(content_tag(dense_part(part.detach())) for part in payload)
