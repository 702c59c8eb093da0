"""The byte ledger: bytes that autograd would hold, and those held instead, by tensor."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from elision.memory.saved.codec import Guarantee
from elision.memory.saved.roles import Role, Slot

__all__ = ["Ledger", "Row", "StorageRecord", "size_text"]

MIB = 2**20


@dataclass(eq=False, slots=True)
class StorageRecord:
    """One piece of memory that saved tensors lie in.

    Attributes:
        nbytes: its size; plain autograd keeps all of it alive, once.
        claimed: whether a row already accounts for its logical bytes.
        held: whether some saved tensor keeps it alive as it is.
        elsewhere: whether it was still alive at the saver's exit although no saved
            tensor holds it: the caller or the model refers to it.
    """

    nbytes: int
    claimed: bool = False
    held: bool = False
    elsewhere: bool = False


@dataclass(eq=False, slots=True)
class Row:
    """One saved tensor.

    Attributes:
        slot: its consumer.
        shape: its shape.
        nbytes: its size, which may be part of the memory it lies in only.
        storage: the memory it lies in.
        first: whether it was the first saved tensor in that memory; the logical bytes
            of the memory are counted here and nowhere else.
        codec: name of the codec (``"kept"``: the tensor itself is held).
        guarantee: the codec's declared error.
        stored_bytes: bytes of the packed form, counted where it was made.
        bound: declared largest absolute error.
        call: number of the function that reads it, which grows from call to call in the
            forward pass; -1 if it is not known.
        restored_bytes: bytes that the backward pass brings back where it reads it.
        note: reason why it is kept as it is although a rule names a codec.
    """

    slot: Slot
    shape: tuple[int, ...]
    nbytes: int
    storage: StorageRecord
    first: bool
    codec: str = "kept"
    guarantee: Guarantee = Guarantee.EXACT
    stored_bytes: int = 0
    bound: float | None = 0.0
    call: int = -1
    restored_bytes: int = 0
    note: str = ""

    @property
    def logical_bytes(self) -> int:
        """Bytes that plain autograd would hold on account of this tensor."""
        return self.storage.nbytes if self.first else 0


@dataclass
class Ledger:
    """All saved tensors of one use of the saver.

    Attributes:
        rows: the tensors, parameters excepted.
        storages: the pieces of memory they lie in.
        parameter_bytes: saved parameters and buffers, which are never touched.
        checkpointed: paths of the modules that ran under torch's checkpointing, which
            takes their tensors, so that the saver has none of them; not the path of a
            module whose parent's is here.
        recomputed_bytes: bytes that were saved in the backward pass, where such a
            module runs again.
        enclosing: the ledger of the saver in whose block this one's is. It has all of
            this one's entries, too.

    Example:
        >>> Ledger(storages=[StorageRecord(4096, held=True)]).held_bytes
        4096
    """

    rows: list[Row] = field(default_factory=list)
    storages: list[StorageRecord] = field(default_factory=list)
    parameter_bytes: int = 0
    checkpointed: tuple[str, ...] = ()
    recomputed_bytes: int = 0
    enclosing: "Ledger | None" = field(default=None, repr=False)

    def _all(self) -> Iterator["Ledger"]:
        """This ledger and those around it."""
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger
            ledger = ledger.enclosing

    def enter(self, storage: StorageRecord) -> None:
        """Enter a piece of memory that saved tensors lie in."""
        self.storages.append(storage)

    def count_parameter(self, nbytes: int) -> None:
        """Count a saved parameter."""
        for ledger in self._all():
            ledger.parameter_bytes += nbytes

    def add(
        self,
        slot: Slot,
        shape: Sequence[int],
        nbytes: int,
        storage: StorageRecord,
        **how: Any,
    ) -> Row:
        """Enter one saved tensor; ``how`` are further fields of the :class:`Row`.

        The row has a copy of ``slot`` without ``node`` and ``region``, which would keep
        the graph alive; the caller's slot stays as it is.
        """
        place, first = slot.without_graph(), not storage.claimed
        row = Row(place, tuple(shape), nbytes, storage, first, **how)
        storage.claimed = True
        for ledger in self._all():
            ledger.rows.append(row)
        return row

    @property
    def logical_bytes(self) -> int:
        """Bytes that plain autograd would hold: every storage once."""
        return sum(storage.nbytes for storage in self.storages)

    @property
    def held_bytes(self) -> int:
        """Bytes of the storages that are held as they are."""
        return sum(storage.nbytes for storage in self.storages if storage.held)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed forms."""
        return sum(row.stored_bytes for row in self.rows)

    @property
    def stored_bytes(self) -> int:
        """Bytes held in place of the logical ones."""
        return self.held_bytes + self.packed_bytes

    @property
    def elsewhere_bytes(self) -> int:
        """Bytes of packed tensors whose original is still referenced elsewhere."""
        return sum(s.nbytes for s in self.storages if s.elsewhere and not s.held)

    @property
    def ratio(self) -> float:
        """Logical over stored bytes; 1 where nothing was saved."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 1.0

    @property
    def peak_ratio_at_most(self) -> float:
        """Bound on the factor by which a step's peak can fall.

        Plain autograd holds all logical bytes when the backward pass begins. Under a
        policy it brings the tensors of one function back at a time; those of earlier
        functions are still stored then. What a step needs beside its saved tensors is in
        both peaks and brings their ratio nearer to one.
        """
        stored: dict[int, int] = defaultdict(int)
        restored: dict[int, int] = defaultdict(int)
        for row, nbytes in self.stored_by_row():
            stored[row.call] += nbytes
            restored[row.call] += row.restored_bytes
        least, before = self.stored_bytes, 0
        for call in sorted(stored):
            before += stored[call]
            if call >= 0:
                least = max(least, before + restored[call])
        return self.logical_bytes / least if least else 1.0

    def covered_ratio(self, codec: str) -> float:
        """Logical over stored bytes of the tensors that ``codec``, a glob, packed.

        A tensor that is packed counts with its own size, whoever saved it first; its
        other uses that read from the same packed form count nothing.
        """
        rows = [r for r in self.rows if r.stored_bytes and fnmatchcase(r.codec, codec)]
        logical = sum(min(r.nbytes, r.storage.nbytes) for r in rows)
        stored = sum(r.stored_bytes for r in rows)
        return logical / stored if stored else 1.0

    def table(self) -> str:
        """Per module and consumer: MiB before and after, codec and declared error.

        Tensors that a module saves in the same way are summed. Rows of less than 0.001
        MiB are left out.
        """
        found: dict[tuple[str, ...], list[int]] = {}
        for row, stored in self.stored_by_row():
            how = f"{row.codec} ({_declared(row)})" + (
                f"; {row.note}" if row.note else ""
            )
            place = row.slot.module or "(the model)", row.slot.consumer
            totals = found.setdefault((*place, row.slot.role.value, how), [0, 0, 0])
            for i, value in enumerate((1, row.logical_bytes, stored)):
                totals[i] += value
        lines = [
            f"{'module':<28} {'consumer':<28} {'role':<15} {'tensors':>7} "
            f"{'MiB':>9} {'stored':>9}  codec (declared)"
        ]
        lines += [
            f"{_clip(module, 28):<28} {_clip(consumer, 28):<28} {role:<15} {count:7} "
            f"{logical / MIB:9.3f} {stored / MIB:9.3f}  {how}"
            for (module, consumer, role, how), (count, logical, stored) in found.items()
            if max(logical, stored) >= 0.001 * MIB
        ]
        return "\n".join(lines)

    def summary(self) -> str:
        """Text of the totals."""
        if not self.rows:
            return (
                "nothing was saved: the model was not called, nothing in it needs a "
                "gradient, or it is compiled and ran in no compiled graph"
            )
        lines = [
            f"saved tensors: {size_text(self.logical_bytes)} in plain autograd, "
            f"{size_text(self.stored_bytes)} stored, {self.ratio:.2f}x fewer",
            f"of these {size_text(self.held_bytes)} are held as they are and "
            f"{size_text(self.packed_bytes)} are packed; parameters "
            f"({size_text(self.parameter_bytes)}) are never touched",
            "by role (what several read counts where it was saved first):",
        ]
        for role, (logical, stored) in self.by_role().items():
            lines.append(
                f"  {role.value:<15} {size_text(logical):>11} -> {size_text(stored):>11}"
            )
        if self.elsewhere_bytes:
            lines.append(
                f"held elsewhere: {size_text(self.elsewhere_bytes)} were packed but "
                "their originals are still referred to by the caller or the model, so "
                "packing them saves nothing until those references are dropped"
            )
        return "\n".join(lines)

    def stored_by_row(self) -> Iterator[tuple[Row, int]]:
        """The rows with what each stores; held memory counts where it is first kept."""
        unclaimed = {id(storage) for storage in self.storages if storage.held}
        for row in self.rows:
            stored = row.stored_bytes
            if row.codec == "kept" and id(row.storage) in unclaimed:
                unclaimed.discard(id(row.storage))
                stored += row.storage.nbytes
            yield row, stored

    def by_module(self) -> list[dict[str, Any]]:
        """One plain row per module and role, in the order of the forward pass.

        Returns:
            Dictionaries with ``module``, ``role``, ``logical_bytes``, ``stored_bytes``,
            ``codec`` and ``declared`` (each a list of what occurs, joined).
        """
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for row, stored in self.stored_by_row():
            key = row.slot.module, row.slot.role.value
            start = {"logical_bytes": 0, "stored_bytes": 0, "codec": {}, "declared": {}}
            entry = found.setdefault(key, start)
            entry["logical_bytes"] += row.logical_bytes
            entry["stored_bytes"] += stored
            entry["codec"][row.codec] = entry["declared"][_declared(row)] = None
        return [
            {"module": module, "role": role}
            | {k: ", ".join(v) if isinstance(v, dict) else v for k, v in entry.items()}
            for (module, role), entry in found.items()
        ]

    def by_role(self) -> dict[Role, tuple[int, int]]:
        """Role -> (logical bytes, stored bytes); memory counts where it was first saved."""
        totals: dict[Role, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for row, stored in self.stored_by_row():
            before, after = totals[row.slot.role]
            totals[row.slot.role] = before + row.logical_bytes, after + stored
        return dict(totals)

    def rows_of(self, roles: Iterable[Role]) -> list[Row]:
        """The rows in any of ``roles``."""
        wanted = frozenset(roles)
        return [row for row in self.rows if row.slot.role in wanted]


def _declared(row: Row) -> str:
    if row.guarantee is Guarantee.BOUNDED and row.bound is not None:
        return f"bounded, |error| <= {row.bound:.3g}"
    return row.guarantee.value


def size_text(nbytes: int) -> str:
    """Bytes in MiB, few of them in KiB."""
    return (
        f"{nbytes / MIB:.2f} MiB" if nbytes >= MIB / 10 else f"{nbytes / 1024:.1f} KiB"
    )


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[1 - width :]
