"""Saved tensors by the memory they lie in, so that none is stored twice.

The same memory is saved by several consumers: a ReLU's result is the next convolution's
input, three projections read one layer norm's output. Memory is recognised by the
storage itself, through a weak reference, never by its address: the allocator hands the
same address out again. The version is part of the key, so that what was written in
between is not taken for the same.
"""

import weakref
from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from elision.memory.saved.codec import Codec, Guarantee
from elision.memory.saved.layout import dense_part, is_dense
from elision.memory.saved.ledger import Ledger, Row, StorageRecord
from elision.memory.saved.roles import SMOOTH_ROLES, Role
from elision.memory.saved.token import CodecEntry, Entry, SignEntry, Token

__all__ = ["Region", "Regions"]


@dataclass(eq=False, slots=True)
class Region:
    """One stretch of one storage at one version.

    Attributes:
        storage: the record of the storage.
        users: the tokens that lie here and their ledger rows.
        nonnegative: whether a ReLU produced it.
    """

    storage: StorageRecord
    users: list[tuple["weakref.ref[Token]", Row]] = field(default_factory=list)
    nonnegative: bool = False
    _entries: "weakref.WeakValueDictionary[Codec, CodecEntry] | None" = None

    @property
    def entries(self) -> "weakref.WeakValueDictionary[Codec, CodecEntry]":
        """Codec -> its packed form of the stretch; alive as long as a token uses it."""
        if self._entries is None:  # most regions are kept as they are and need none
            self._entries = weakref.WeakValueDictionary()
        return self._entries

    def held(self) -> torch.Tensor | None:
        """The tensor itself, if some decided token holds it, other than for a square."""
        for reference, row in self.users:
            token = reference()
            if token is None or row.slot.role is Role.SQUARE:
                continue
            if token.tensor is not None:
                return token.tensor
        return None

    def packed(self) -> CodecEntry | None:
        """A packed form of the values that another consumer may read."""
        for token in self.tokens():
            entry = token.entry
            if isinstance(entry, CodecEntry) and entry.codec.roles & SMOOTH_ROLES:
                return entry
        return None

    def square(self, entry: CodecEntry) -> None:
        """Let the squares of the values be those of ``entry``.

        A square that nothing else reads is often a loss and stays exact; one that
        belongs to a norm of the values follows what the norm itself reads.
        """
        for reference, row in self.users:
            token = reference()
            if token is not None and row.slot.role is Role.SQUARE and not token.stale:
                token.hand_over(entry)
                row.codec, row.guarantee = entry.codec.name, entry.codec.guarantee
                row.bound = entry.codec.bound(entry.packed)

    def tokens(self) -> tuple[Token, ...]:
        """Tokens of the region that are still alive."""
        return tuple(filter(None, (reference() for reference, _ in self.users)))

    def take_back(self, tensor: torch.Tensor) -> None:
        """Give the tensor itself to every token of the region, once one needs it."""
        for reference, row in self.users:
            token = reference()
            if token is None or _is_private(token.entry):
                continue
            if token.tensor is None:
                token.take_back(tensor)
                row.codec, row.guarantee = "kept", Guarantee.EXACT
                row.stored_bytes, row.bound = 0, 0.0

    def read_signs_from(self, entry: CodecEntry) -> None:
        """Let the masks of ReLUs be read from ``entry`` instead of stored."""
        for reference, row in self.users:
            token = reference()
            if token is None or row.slot.function != "ReluBackward0":
                continue
            token.hand_over(SignEntry(entry))
            row.codec, row.stored_bytes = f"mask in {entry.codec}", 0


def _is_private(entry: Entry | None) -> bool:
    """True for a form that only fits the consumer that it was made for."""
    return isinstance(entry, CodecEntry) and not entry.codec.shared


@dataclass(eq=False, slots=True)
class _Storage:
    alive: StorageWeakRef
    record: StorageRecord
    regions: dict[tuple, Region] = field(default_factory=dict)


class Regions:
    """All memory that saved tensors lie in during one use of the saver."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._storages: dict[int, _Storage] = {}

    def find(self, tensor: torch.Tensor) -> Region:
        """The region that a tensor covers."""
        untyped = tensor.untyped_storage()
        storage = self._storages.get(untyped._cdata)
        if storage is None or storage.alive.expired():
            record = StorageRecord(untyped.nbytes())
            self._ledger.storages.append(record)
            storage = _Storage(StorageWeakRef(untyped), record)
            self._storages[untyped._cdata] = storage
        key = _key(tensor)
        region = storage.regions.get(key)
        if region is None:
            region = storage.regions[key] = Region(storage.record)
        return region

    def mark_elsewhere(self) -> None:
        """Mark storages still alive at exit.

        Those that no saved tensor holds belong to the caller or the model.
        """
        for storage in self._storages.values():
            for region in storage.regions.values():
                if any(token.tensor is not None for token in region.tokens()):
                    storage.record.held = True
            storage.record.elsewhere = not storage.alive.expired()


def _key(tensor: torch.Tensor) -> tuple:
    """Stretch of its storage that the tensor covers; equal for views of the same one."""
    base = tensor.storage_offset(), tensor._version, tensor.dtype
    if tensor.is_contiguous() or is_dense(tensor.shape, tensor.stride()):
        return (*base, tensor.numel())
    part = dense_part(tensor) if 0 in tensor.stride() else tensor
    return (*base, tuple(part.shape), part.stride())
