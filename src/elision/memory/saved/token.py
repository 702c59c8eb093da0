"""Tokens: autograd holds one in place of each saved tensor.

A :class:`Token` starts out holding the tensor itself. Once its consumer is known it may
be given an :class:`Entry` instead, a packed form that other tokens of the same memory
share. It watches the version in either case, because with hooks in place autograd no
longer does: what plain autograd refuses, because a saved tensor was written, is refused.
"""

import functools
from typing import Protocol

import torch

from elision.memory.saved.codec import Codec, Packed
from elision.memory.saved.layout import lay_down
from elision.memory.saved.ledger import Row

__all__ = ["CodecEntry", "Entry", "SignEntry", "Token"]


class Entry(Protocol):
    """A packed tensor that can be restored any number of times."""

    def restore(self) -> torch.Tensor:
        """A dense tensor, new or shared, that the caller does not modify."""
        ...


class Memory(Protocol):
    """The memory that a packed tensor lay in."""

    def rewritten(self) -> torch.Tensor | None:
        """The memory as it is now; None if it is gone, or what was packed."""
        ...


class CodecEntry:
    """A tensor packed by a codec; several tokens may share it.

    Attributes:
        codec: packed it.
        packed: in this form.
        keeps_sign: whether a ReLU's mask can be read from it.
    """

    codec: Codec
    packed: Packed
    keeps_sign: bool

    def __init__(self, codec: Codec, packed: Packed) -> None:
        self.codec, self.packed = codec, packed
        self.keeps_sign = codec.keeps_sign(packed)
        self._counted = False

    def restore(self) -> torch.Tensor:
        """The unpacked tensor, its packed bytes verified if they have a checksum."""
        self.packed.verify()
        return self.codec.unpack(self.packed)

    def restore_sign(self) -> torch.Tensor:
        """1 where the saved tensor was positive, else 0; verified likewise."""
        self.packed.verify()
        return self.codec.unpack_sign(self.packed)

    def describe(self, row: Row) -> None:
        """Enter the codec, its declared error and, for the first row, the bytes."""
        row.codec, row.guarantee = self.codec.name, self.codec.guarantee
        row.bound = self.codec.bound(self.packed)
        row.restored_bytes = row.nbytes if self.codec.reads_values else 0
        if not self._counted:
            row.stored_bytes, self._counted = self.packed.nbytes, True


class SignEntry:
    """A ReLU's mask, read from the packed values of the same tensor."""

    def __init__(self, values: CodecEntry) -> None:
        self.values = values

    def restore(self) -> torch.Tensor:
        """1 where the saved tensor was positive, else 0."""
        return self.values.restore_sign()


class Token:
    """One saved tensor, as the pack hook returned it.

    Attributes:
        entry: the packed form; None while the token holds the tensor itself.
        settled: whether it is decided which of the two it is to hold.
        pinned: whether it is to hold the tensor itself, from which another is computed.
    """

    __slots__ = (
        *("__weakref__", "_place", "_region", "_tensor", "_version"),
        *("entry", "pinned", "settled"),
    )

    def __init__(self, tensor: torch.Tensor) -> None:
        # A parameter is held itself, as autograd does: data that it is given later is
        # what the backward pass reads. Anything else is held without its history.
        leaf = tensor.is_leaf and tensor.requires_grad
        self._tensor = tensor if leaf else tensor.detach()
        self._version = tensor._version
        self.entry: Entry | None = None
        self.settled = self.pinned = False

    @property
    def tensor(self) -> torch.Tensor | None:
        """The tensor itself, without history; None once ``entry`` holds it."""
        return self._tensor if self.entry is None else None

    @property
    def stale(self) -> bool:
        """True if the tensor was modified since it was saved."""
        return self._tensor._version != self._version

    def hand_over(self, entry: Entry, region: Memory) -> None:
        """Let ``entry`` hold the tensor from now on.

        Args:
            entry: its packed form.
            region: the memory that it lay in.
        """
        if self.entry is None:
            tensor = (
                self._tensor.detach() if self._tensor.requires_grad else self._tensor
            )
            self._place = tensor.shape, tensor.stride(), tensor.storage_offset()
            # The memory goes, the version counter stays.
            tensor.data = _nothing(tensor.device)
            self._tensor = tensor
        self.entry, self._region = entry, region

    def share(self, source: "Token") -> None:
        """Be packed as ``source`` is, from which this token's tensor was restored."""
        assert source.entry is not None
        shape, stride = self._tensor.shape, self._tensor.stride()
        self._tensor, self._version = source._tensor, source._version
        self._place = shape, stride, source._place[2]
        self.entry, self._region = source.entry, source._region

    def take_back(self, tensor: torch.Tensor) -> None:
        """Hold the tensor itself after all: ``tensor`` lies in its memory."""
        self._tensor.data = tensor.detach().as_strided(*self._place)
        self.entry = None

    def restore(self) -> torch.Tensor:
        """The saved tensor, for the consumer.

        Raises:
            RuntimeError: it was modified since it was saved.
        """
        if self.stale:
            shape = self._tensor.shape if self.entry is None else self._place[0]
            raise RuntimeError(
                "one of the variables needed for gradient computation has been "
                "modified by an inplace operation: a saved tensor of shape "
                f"{tuple(shape)} is at version {self._tensor._version}; "
                f"expected version {self._version} instead"
            )
        if self.entry is None:
            return self._tensor
        rewritten = self._region.rewritten()
        if rewritten is not None:  # as plain autograd reads it, which has no copy
            return rewritten.as_strided(*self._place)
        return lay_down(self.entry.restore(), *self._place[:2])


@functools.cache
def _nothing(device: torch.device) -> torch.Tensor:
    return torch.empty(0, device=device)
