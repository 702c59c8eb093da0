"""Traffic of a folded matrix product between DRAM and double-buffered SRAMs.

A product larger than the array is cut into *folds*, one per tile of the two dimensions
that the array holds; the fold loops are called ``rows`` and ``columns``. A tensor
either changes with both (the tile itself), or stays the same along one of them::

          rows  columns  stays along columns  stays along rows    changes with both
    ws    k     n        A                    Z (partial sums)    B
    is    k     m        B                    Z (partial sums)    A
    os    m     n        A                    B                   Z

A tensor that stays along a loop is moved once if its working set fits into half of its
buffer (the other half is being filled), and once per turn of that loop if not; partial
sums that do not fit are written and read back. Of the two loop orders the better is
taken: fewer stall cycles, then fewer words.

The bus is shared: while one fold computes, it moves what that fold needs next to what
it wrote, so that a fold takes ``max(compute, bus)`` cycles. The excess is *stall*
cycles; the very first fill and the last write-back, which nothing hides, are *fill*
cycles. These rules are this project's own: SCALE-Sim replays traces instead. An image
is counted in DRAM words of the image itself; it is unfolded on its way from the buffer
to the array.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product as pairs
from typing import Literal, NamedTuple

from elision.accelerators.energy import DRAM
from elision.common.checks import number

__all__ = ["Buffers", "Stream", "Traffic", "traffic"]

#: Bytes of one word: accelerators count 32-bit words.
WORD_BYTES = 4

Loop = Literal["rows", "columns"]


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """Sizes of the three double-buffered SRAMs, and the bandwidth behind them.

    Every product of a layer touches one tensor of each kind, so one buffer serves the
    input and its gradient, one the weight and its gradient, one the output and its
    gradient.

    Attributes:
        input_kib, weight_kib, output_kib: capacity, both halves together (2,048 KiB
            each: an own choice of the order of the first TPU's 6,144/6,144/2,048).
        dram_words_per_cycle: 32-bit words that the DRAM moves per array cycle, reads
            and writes together (16, that is 64 GB/s at 1 GHz: an own choice).

    Raises:
        ValueError: a size or the bandwidth is not a positive number, or a size is
            infinite.

    Example:
        >>> Buffers.parse("512/256/1024@8").sizes_kib["weight"]
        256.0
    """

    input_kib: float = 2048.0
    weight_kib: float = 2048.0
    output_kib: float = 2048.0
    dram_words_per_cycle: float = 16.0

    def __post_init__(self) -> None:
        for name in ("input_kib", "weight_kib", "output_kib"):
            number("Buffers", name, getattr(self, name), "> 0")
        bandwidth = self.dram_words_per_cycle
        number("Buffers", "dram_words_per_cycle", bandwidth, "(0, inf]")

    @staticmethod
    def minimum_kib(rows: int, columns: int) -> float:
        """The least a buffer can hold: one tile of the array in each half."""
        return 2 * rows * columns * WORD_BYTES / 1024

    @classmethod
    def fitting(cls, rows: int, columns: int) -> "Buffers":
        """The default sizes, or larger ones if an array's tile needs more."""
        size = max(cls.input_kib, cls.minimum_kib(rows, columns))
        return cls(input_kib=size, weight_kib=size, output_kib=size)

    @classmethod
    def parse(cls, text: str) -> "Buffers":
        """Buffers in the notation of the command line.

        Args:
            text: ``"512"`` or ``"512/256/1024"``, KiB of all or of input, weight and
                output; then, if wanted, ``"@16"``, DRAM words per cycle.

        Raises:
            ValueError: the text is not of this form, or a size is not allowed.
        """
        sizes, _, bandwidth = text.partition("@")
        try:
            speed = float(bandwidth or cls.dram_words_per_cycle)
            numbers = [float(size) for size in sizes.split("/")]
            i, w, o = 3 * numbers if len(numbers) == 1 else numbers
        except ValueError:
            raise ValueError(
                f"buffers {text!r}: write KIB or INPUT/WEIGHT/OUTPUT in KiB, with "
                "@WORDS for DRAM words per cycle, such as 512/256/1024@16"
            ) from None
        return cls(input_kib=i, weight_kib=w, output_kib=o, dram_words_per_cycle=speed)

    @classmethod
    def given(
        cls, buffers: "Buffers | str | float | None", rows: int, columns: int
    ) -> "Buffers":
        """The buffers of an array: as given, as a text (see :meth:`parse`), or fitting.

        Raises:
            ValueError: one cannot hold a tile of the array in each half.
        """
        if buffers is None:
            return cls.fitting(rows, columns)
        found = buffers if isinstance(buffers, Buffers) else cls.parse(str(buffers))
        found.check_tile(rows, columns)
        return found

    def check_tile(self, rows: int, columns: int) -> None:
        """Raise ValueError if a buffer cannot hold one tile in each half."""
        minimum = self.minimum_kib(rows, columns)
        for family, size in self.sizes_kib.items():
            if size < minimum:
                raise ValueError(
                    f"Buffers({family}_kib={size:g}): a {rows}x{columns} array needs "
                    f"at least {minimum:g} KiB, one tile of 32-bit words in each half"
                )

    @property
    def sizes_kib(self) -> dict[str, float]:
        """Capacity by family of tensors."""
        return {
            "input": self.input_kib,
            "weight": self.weight_kib,
            "output": self.output_kib,
        }

    @property
    def memories(self) -> dict[str, float]:
        """Capacity in KiB by the memory's name in a cost, for the energy table."""
        srams = {f"{name}_sram": size for name, size in self.sizes_kib.items()}
        return {**srams, "dram": DRAM}


class Stream(NamedTuple):
    """One tensor of one pass over the array.

    Attributes:
        family: the buffer it goes through.
        words: its distinct values.
        stays_along: the fold loop that does not change it, None for the tile itself.
        result: whether it is written; a result that stays along a loop is accumulated.

    Example:
        >>> Stream("input", 1024.0, "columns").result
        False
    """

    family: str
    words: float
    stays_along: Loop | None
    result: bool = False


class Traffic(NamedTuple):
    """DRAM words and the cycles that the array waits for them.

    Example:
        >>> Traffic(reads=100, writes=10, stall_cycles=0, fill_cycles=7).reads
        100
    """

    reads: int
    writes: int
    stall_cycles: int
    fill_cycles: int


@lru_cache(maxsize=65536)
def traffic(
    streams: tuple[Stream, ...],
    rows: int,
    columns: int,
    fold_cycles: int,
    buffers: Buffers,
    passes: int = 1,
) -> Traffic:
    """DRAM traffic and stalls of equal passes of ``rows`` x ``columns`` folds.

    Args:
        streams: the tensors of one pass.
        rows: turns of the fold loop over the array's rows.
        columns: turns of the fold loop over its columns.
        fold_cycles: cycles that one fold computes.
        buffers: SRAM sizes and DRAM bandwidth.
        passes: equal passes one after the other (groups).
    """
    folds = {"rows": rows, "columns": columns}
    orders: list[tuple[Loop, Loop]] = [("rows", "columns"), ("columns", "rows")]
    options = [
        _ordered(streams, folds, order, fold_cycles, buffers) for order in orders
    ]
    best = min(options, key=lambda t: (t.stall_cycles, t.reads + t.writes))
    return Traffic(
        best.reads * passes,
        best.writes * passes,
        best.stall_cycles * passes,
        best.fill_cycles,
    )


def _ordered(
    streams: tuple[Stream, ...],
    folds: Mapping[str, int],
    order: tuple[Loop, Loop],
    fold_cycles: int,
    buffers: Buffers,
) -> Traffic:
    """Traffic of one pass with the outer and the inner loop given.

    Folds of equal position (first, middle or last turn of each loop) move equal
    amounts, so at most nine kinds are looked at.
    """
    outer, inner = order
    held = _held(streams, folds, order, buffers)
    bandwidth = buffers.dram_words_per_cycle
    reads = writes = 0.0
    stalls = fill = 0
    for (o_first, o_last, o_count), (i_first, i_last, i_count) in pairs(
        _turns(folds[outer]), _turns(folds[inner])
    ):
        first = {outer: o_first, inner: i_first}
        last = {outer: o_last, inner: i_last}
        count = o_count * i_count
        fold_reads = fold_writes = 0.0
        for stream, keeps in zip(streams, held, strict=True):
            stays = stream.stays_along
            slices = folds["rows"] * folds["columns"]
            words = stream.words / (slices // folds[stays] if stays else slices)
            if not stream.result:
                if not keeps or stays is None or first[stays]:
                    fold_reads += words
            elif stays is None or (keeps and last[stays]):
                fold_writes += words
            elif not keeps:
                fold_writes += words
                fold_reads += 0 if first[stays] else words
        reads += count * fold_reads
        writes += count * fold_writes
        bus = math.ceil((fold_reads + fold_writes) / bandwidth - 1e-9)
        stalls += count * max(0, bus - fold_cycles)
        if o_first and i_first:
            fill += math.ceil(fold_reads / bandwidth - 1e-9)
        if o_last and i_last:
            fill += math.ceil(fold_writes / bandwidth - 1e-9)
    return Traffic(round(reads), round(writes), stalls, fill)


def _turns(count: int) -> list[tuple[bool, bool, int]]:
    """(is first, is last, how many) of the kinds of turns of a loop."""
    if count == 1:
        return [(True, True, 1)]
    kinds = [(True, False, 1), (False, False, count - 2), (False, True, 1)]
    return [kind for kind in kinds if kind[2]]


def _held(
    streams: tuple[Stream, ...],
    folds: Mapping[str, int],
    order: tuple[Loop, Loop],
    buffers: Buffers,
) -> list[bool]:
    """For each stream, True if its working set stays on chip along its loop.

    Along the inner loop that is the slice of the current outer turn, along the outer
    loop the whole tensor. Where two tensors share a buffer the accumulated one goes
    first: it would move twice per turn.
    """
    outer, inner = order
    free = {
        name: size * 1024 / WORD_BYTES / 2 for name, size in buffers.sizes_kib.items()
    }
    held = [False] * len(streams)
    for index in sorted(range(len(streams)), key=lambda i: not streams[i].result):
        stream = streams[index]
        if stream.stays_along is None:
            continue
        slices = folds[outer] if stream.stays_along == inner else 1
        need = stream.words / slices
        if need <= free[stream.family]:
            held[index] = True
            free[stream.family] -= need
    return held
