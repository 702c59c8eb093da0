"""Saved tensors by the memory they lie in, so that none is stored twice.

The same memory is saved by several consumers: a ReLU's result is the next convolution's
input, three projections read one layer norm's output. Memory is recognised by the
storage itself, through a weak reference, never by its address: the allocator hands the
same address out again. The version is part of the key, so that what was written in
between is not taken for the same.

Some writes no version counter counts: those through ``.data``, numpy, or another counter
of the same memory. What was packed is therefore tagged by its content, and its memory is
let go only once nobody else has it, who could write to it. If it is no longer what was
packed then, or when it is met again, the memory counts, as it does in plain autograd,
which holds nothing else.
"""

import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from elision.memory.saved.codec import Codec, Guarantee
from elision.memory.saved.layout import dense_part, is_dense
from elision.memory.saved.ledger import Ledger, Row, StorageRecord
from elision.memory.saved.roles import SMOOTH_ROLES, Role, Slot
from elision.memory.saved.tag import content_tag
from elision.memory.saved.token import CodecEntry, Entry, SignEntry, Token

__all__ = ["Region", "Regions"]

#: Offset, dtype, conjugated or not, negated or not, shape and strides of a view.
_Geometry = tuple[int, torch.dtype, bool, bool, tuple[int, ...], tuple[int, ...]]


@dataclass(eq=False, slots=True)
class Region:
    """One stretch of one storage at one version.

    Attributes:
        storage: the record of the storage.
        users: the tokens that lie here and their ledger rows.
        nonnegative: whether a ReLU produced it.
    """

    storage: StorageRecord
    _alive: StorageWeakRef
    _geometry: _Geometry
    users: list[tuple["weakref.ref[Token]", Row]] = field(default_factory=list)
    nonnegative: bool = False
    _entries: dict[Hashable, "weakref.ref[CodecEntry]"] = field(default_factory=dict)
    _tag: int | None = None

    def entry(self, codec: Codec, slot: Slot) -> CodecEntry | None:
        """Packed form of the stretch for such a consumer, if a token still uses it."""
        reference = self._entries.get(codec.form(slot))
        return None if reference is None else reference()

    def share(self, codec: Codec, slot: Slot, entry: CodecEntry) -> None:
        """Let other tokens use a packed form, as long as one does."""
        self._entries[codec.form(slot)] = weakref.ref(entry)

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
            if token is None or token.stale or token.pinned:
                continue
            if row.slot.role is Role.SQUARE:
                token.hand_over(entry, self)
                entry.describe(row)

    def tokens(self) -> tuple[Token, ...]:
        """Tokens of the region that are still alive."""
        return tuple(filter(None, (reference() for reference, _ in self.users)))

    def mark(self, tag: int) -> None:
        """Remember the content that was packed, by its tag."""
        self._tag = tag

    @property
    def marked(self) -> bool:
        """True once the content has a tag."""
        return self._tag is not None

    def rewritten(self) -> torch.Tensor | None:
        """The memory as it is now; None if it is gone, or what was packed."""
        if self._tag is None or self._alive.expired():
            return None
        storage = torch.UntypedStorage._new_with_weak_ptr(self._alive.cdata)
        if storage is None:
            return None
        offset, dtype, conjugated, negated, shape, stride = self._geometry
        memory = torch.empty(0, dtype=dtype, device=storage.device)
        memory = memory.set_(storage).as_strided(shape, stride, offset)
        memory = memory.conj() if conjugated else memory
        memory = torch.ops.aten._neg_view(memory) if negated else memory
        return None if content_tag(dense_part(memory)) == self._tag else memory

    def verify(self) -> None:
        """Give the memory itself to the tokens if it is no longer what was packed."""
        if any(token.entry is not None and not token.stale for token in self.tokens()):
            memory = self.rewritten()
            if memory is not None:
                self.take_back(memory, written=True)

    def take_back(self, tensor: torch.Tensor, *, written: bool = False) -> None:
        """Give the tensor itself to every token of the region, once one needs it.

        Args:
            tensor: the memory.
            written: whether it was written; a form that fits its own consumer alone, and
                is as good as the memory else, is then no longer right.
        """
        self.storage.held = True
        for reference, row in self.users:
            token = reference()
            if token is None or token.entry is None or _stays(token.entry, written):
                continue
            token.take_back(tensor)
            row.codec, row.guarantee = "kept", Guarantee.EXACT
            row.stored_bytes, row.bound = 0, 0.0

    def read_signs_from(self, entry: CodecEntry, codec: str) -> None:
        """Let the masks of ReLUs be read from ``entry``, by ``codec``, not stored."""
        for reference, row in self.users:
            token = reference()
            if token is None or row.slot.function != "ReluBackward0" or token.pinned:
                continue
            token.hand_over(SignEntry(entry), self)
            row.codec, row.stored_bytes = f"mask in {codec}", 0


def _stays(entry: Entry, written: bool) -> bool:
    """Whether a form stays although the memory itself is held, or was written."""
    if not isinstance(entry, CodecEntry):
        return False
    return not (entry.codec.reads_values if written else entry.codec.shared)


@dataclass(eq=False, slots=True)
class _Storage:
    alive: StorageWeakRef
    record: StorageRecord
    regions: dict[tuple, Region] = field(default_factory=dict)
    guard: torch.UntypedStorage | None = None

    def verify(self) -> None:
        """Verify what was packed of it."""
        for region in self.regions.values():
            if region.marked:
                region.verify()


class Regions:
    """All memory that saved tensors lie in during one use of the saver.

    Args:
        ledger: enters the storages.
        outer: those of the saver in whose block this one is used: memory that both meet
            has one record.
    """

    def __init__(self, ledger: Ledger, outer: "Regions | None" = None) -> None:
        self._ledger, self._outer = ledger, outer
        self._storages: dict[int, _Storage] = {}
        self._guarded: list[_Storage] = []

    def find(self, tensor: torch.Tensor) -> Region:
        """The region that a tensor covers, all that was packed of its memory verified."""
        storage = self._storage(tensor.untyped_storage())
        storage.verify()
        key = _key(tensor)
        region = storage.regions.get(key)
        if region is None:
            region = Region(storage.record, storage.alive, _geometry(tensor))
            storage.regions[key] = region
        return region

    def _storage(self, untyped: torch.UntypedStorage) -> _Storage:
        storage = self._storages.get(untyped._cdata)
        if storage is None or storage.alive.expired():
            if self._outer is None:
                record = StorageRecord(untyped.nbytes())
            else:
                record = self._outer._storage(untyped).record
            self._ledger.enter(record)
            storage = _Storage(StorageWeakRef(untyped), record)
            self._storages[untyped._cdata] = storage
        return storage

    def hold(self, untyped: torch.UntypedStorage) -> bool:
        """Note that a storage is held as it is; False if it was never met."""
        storage = self._storages.get(untyped._cdata)
        if storage is None or storage.alive.expired():
            return False
        storage.record.held = True
        return True

    def guard(self, tensor: torch.Tensor) -> None:
        """Hold the memory of a packed tensor as long as somebody else does."""
        untyped = tensor.untyped_storage()
        storage = self._storages[untyped._cdata]
        if storage.guard is None:
            storage.guard = untyped
            self._guarded.append(storage)

    def release(self) -> None:
        """Let go of the memory that nobody else has."""
        left = []
        for storage in self._guarded:
            guard = storage.guard
            if guard is None or _use_count(guard._cdata) > 1:
                left.append(storage)
                continue
            storage.verify()
            storage.guard = None
        self._guarded = left

    def finish(self) -> None:
        """Let go of all memory, and mark what is still alive.

        What no saved tensor holds belongs to the caller or the model.
        """
        self.release()
        for storage in self._guarded:
            storage.verify()
            storage.guard = None
        self._guarded.clear()
        for storage in self._storages.values():
            for region in storage.regions.values():
                if any(token.tensor is not None for token in region.tokens()):
                    storage.record.held = True
            storage.record.elsewhere = not storage.alive.expired()


#: Holders of a storage.
_use_count = torch._C._storage_Use_Count  # pyright: ignore[reportAttributeAccessIssue]


def _geometry(tensor: torch.Tensor) -> _Geometry:
    return (
        int(tensor.storage_offset()),
        tensor.dtype,
        tensor.is_conj(),
        tensor.is_neg(),
        tuple(tensor.shape),
        tensor.stride(),
    )


def _key(tensor: torch.Tensor) -> tuple:
    """Stretch of its storage that the tensor covers; equal for views of the same one."""
    flags = tensor.is_conj(), tensor.is_neg()
    base = tensor.storage_offset(), tensor._version, tensor.dtype, *flags
    if tensor.is_contiguous() or is_dense(tensor.shape, tensor.stride()):
        return (*base, tensor.numel())
    if 0 not in tensor.stride():
        return (*base, tuple(tensor.shape), tensor.stride())
    part = dense_part(tensor)
    return (*base, tuple(part.shape), part.stride())
