"""Tokens: autograd holds one in place of each saved tensor.

A :class:`Token` starts out holding the tensor itself. Once its consumer is known it may
be given an :class:`Entry` instead, a packed form that other tokens of the same memory
share. As long as it holds the tensor itself it watches the version, because with hooks
in place autograd no longer does.
"""

from typing import Protocol

import torch

from elision.memory.saved.codec import Codec, Packed
from elision.memory.saved.layout import lay_down

__all__ = ["CodecEntry", "Entry", "SignEntry", "Token"]


class Entry(Protocol):
    """A packed tensor that can be restored any number of times."""

    @property
    def nbytes(self) -> int:
        """Bytes of the packed form that no other entry accounts for."""
        ...

    def restore(self) -> torch.Tensor:
        """A dense tensor, new or shared, that the caller does not modify."""
        ...


class CodecEntry:
    """A tensor packed by a codec."""

    def __init__(self, codec: Codec, packed: Packed) -> None:
        self.codec = codec
        self.packed = packed

    @property
    def nbytes(self) -> int:
        """Bytes of the payload."""
        return self.packed.nbytes

    def restore(self) -> torch.Tensor:
        """The unpacked tensor."""
        return self.codec.unpack(self.packed)


class SignEntry:
    """A ReLU's mask, read from the packed values of the same tensor."""

    nbytes = 0

    def __init__(self, values: CodecEntry) -> None:
        self.values = values

    def restore(self) -> torch.Tensor:
        """1 where the saved tensor was positive, else 0."""
        return self.values.codec.unpack_sign(self.values.packed)


class Token:
    """One saved tensor, as the pack hook returned it.

    Attributes:
        tensor: the tensor itself, without history; None once ``entry`` holds it.
        entry: the packed form.
    """

    __slots__ = ("__weakref__", "_shape", "_stride", "_version", "entry", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor: torch.Tensor | None = tensor.detach()
        self.entry: Entry | None = None
        self._shape, self._stride = tensor.shape, tensor.stride()
        self._version = tensor._version

    @property
    def stale(self) -> bool:
        """True if the tensor was modified since it was saved."""
        return self.tensor is not None and self.tensor._version != self._version

    def hand_over(self, entry: Entry) -> None:
        """Let ``entry`` hold the tensor from now on."""
        self.entry, self.tensor = entry, None

    def take_back(self, tensor: torch.Tensor) -> None:
        """Hold the tensor itself after all: ``tensor`` has its memory and version."""
        self.tensor = tensor.as_strided(
            self._shape, self._stride, tensor.storage_offset()
        )
        self.entry = None

    def restore(self) -> torch.Tensor:
        """The saved tensor, for the consumer.

        Raises:
            RuntimeError: the tensor itself is held and was modified since.
        """
        if self.tensor is None:
            assert self.entry is not None
            return lay_down(self.entry.restore(), self._shape, self._stride)
        if self.stale:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been "
                "modified by an inplace operation: a saved tensor of shape "
                f"{tuple(self._shape)} is at version {self.tensor._version}; "
                f"expected version {self._version} instead"
            )
        return self.tensor
