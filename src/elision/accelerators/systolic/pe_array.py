"""PE-level simulation: every register of a systolic array, one clock at a time.

The oracle of the closed forms in :mod:`elision.accelerators.systolic.systolic`: slow, for small
arrays, and value-exact. An array is a set of R x C register files that move by one PE
per clock, without the formulas. A run ends when the last value has left the array (or, if
results drain under the next fold, when the last PE is done); its cycles are the clock then.

Words that enter at an edge are counted as reads of the SRAM behind that edge.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

__all__ = [
    "Run",
    "diagonal",
    "entering",
    "from_north",
    "from_west",
    "output_stationary",
    "padded",
    "tiles_of",
    "weight_stationary",
]


@dataclass
class Run:
    """Results and counts of a simulation.

    Attributes:
        results: matrices by name, assembled from all folds.
        cycles: clocks from the first load to the end.
        tail: clocks after the end in which the last fold's results still leave, if
            they drain under the next fold.
        reads: words that entered the array, by matrix.
        writes: words that left it, by matrix.
        macs: multiply-accumulates of values that belong to the operands.
        ports: clocks in which a port carried a value, by port, in order.

    Example:
        >>> run = weight_stationary(np.ones((2, 2)), np.eye(2), 2, 2)
        >>> run.cycles, run.macs
        (6, 8)
    """

    results: dict[str, np.ndarray]
    cycles: int = 0
    tail: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    macs: int = 0
    ports: dict[str, list[int]] = field(default_factory=dict)

    def busy(self, port: str, clock: int) -> None:
        """Record a clock in which a port carried a value."""
        self.ports.setdefault(port, []).append(clock)


def tiles_of(size: int, step: int) -> Iterator[slice]:
    """Consecutive slices of ``step`` of a dimension; the last may be shorter."""
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def padded(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """``matrix`` in the corner of a zero matrix: idle PEs compute with zeros."""
    full = np.zeros(shape)
    full[: matrix.shape[0], : matrix.shape[1]] = matrix
    return full


def from_west(registers: np.ndarray, entering: np.ndarray) -> np.ndarray:
    """Values that enter each PE from the west: its neighbour's register, or the edge."""
    return np.hstack([entering[:, None], registers[:, :-1]])


def from_north(registers: np.ndarray, entering: np.ndarray) -> np.ndarray:
    """Values that enter each PE from the north: its neighbour's register, or the edge."""
    return np.vstack([entering[None], registers[:-1]])


def diagonal(stream: np.ndarray, clock: int) -> np.ndarray:
    """Entry ``clock − i`` of each lane i of a (time, lane) stream; 0 outside of it."""
    lanes = np.arange(stream.shape[1])
    times = clock - lanes
    inside = (times >= 0) & (times < len(stream))
    return np.where(inside, stream[times.clip(0, len(stream) - 1), lanes], 0.0)


def entering(stream: np.ndarray, clock: int) -> bool:
    """True if any lane of a skewed stream enters the array in a clock."""
    return clock < len(stream) + stream.shape[1] - 1


def weight_stationary(
    a: np.ndarray, b: np.ndarray, rows: int, columns: int, preload: bool = False
) -> Run:
    """``Z[m, n] = A[m, k] · B[k, n]`` with B held: PE (k, n) keeps ``B[k, n]``.

    A enters at the west edge, row k one clock after row k − 1; partial sums enter as
    zeros at the north edge, and leave at the south. Input-stationary is this with the
    operands transposed: ``Zᵀ = Bᵀ · Aᵀ``.

    Args:
        a: (m, k).
        b: (k, n).
        rows: PEs of a column.
        columns: PEs of a row.
        preload: a shadow register per PE takes the next tile while this one computes.
    """
    z = np.zeros((len(a), b.shape[1]))
    run = Run({"z": z})
    tiles = [
        (ks, ns)
        for ns in tiles_of(b.shape[1], columns)
        for ks in tiles_of(len(b), rows)
    ]
    waiting = np.zeros((rows, columns))  # the chain through which a tile is loaded

    def load(tile: tuple[slice, slice], step: int) -> None:
        """Shift one row of a tile in from the north, the last row first."""
        nonlocal waiting
        full = padded(b[tile], (rows, columns))
        waiting = from_north(waiting, full[rows - 1 - step])

    for index, (ks, ns) in enumerate(tiles):
        if index == 0 or not preload:
            for step in range(rows):
                load((ks, ns), step)
                run.busy("north", run.cycles)
                run.cycles += 1
        stationary = waiting.copy()
        run.reads["b"] += b[ks, ns].size
        stream = padded(a[:, ks], (len(a), rows))
        run.reads["a"] += a[:, ks].size
        run.macs += a[:, ks].size * b[ks, ns].shape[1]
        tile_z = np.zeros((len(a), columns))
        east, south = np.zeros((rows, columns)), np.zeros((rows, columns))
        collected = clock = 0
        while collected < tile_z.size:
            if preload and index + 1 < len(tiles) and clock < rows:
                load(tiles[index + 1], clock)
            east = from_west(east, diagonal(stream, clock))
            if entering(stream, clock):
                run.busy("west", run.cycles + clock)
            south = from_north(south, np.zeros(columns)) + east * stationary
            for column in range(columns):
                m = clock - (rows - 1) - column
                if 0 <= m < len(a):
                    tile_z[m, column] = south[-1, column]
                    run.busy("south", run.cycles + clock)
                    collected += 1
            clock += 1
        run.cycles += clock
        z[:, ns] += tile_z[:, : b[ks, ns].shape[1]]
        run.writes["z"] += z[:, ns].size
    return run


def output_stationary(
    a: np.ndarray, b: np.ndarray, rows: int, columns: int, drain: str = "overlapped"
) -> Run:
    """``Z[m, n] = A[m, k] · B[k, n]`` with Z held: PE (m, n) accumulates ``Z[m, n]``.

    A enters at the west edge, B at the north, each lane one clock after its neighbour.
    With ``drain="explicit"`` the accumulators shift out southwards when a fold is done.
    With ``"overlapped"`` the next fold starts at once: a PE copies its finished sum to
    a shadow register, and the shadows of a column shift out as soon as its last PE is
    done.

    Args:
        a: (m, k).
        b: (k, n).
        rows: PEs of a column.
        columns: PEs of a row.
        drain: ``"overlapped"`` or ``"explicit"``.
    """
    inner = a.shape[1]
    z = np.zeros((len(a), b.shape[1]))
    run = Run({"z": z})
    tiles = [
        (ms, ns) for ms in tiles_of(len(a), rows) for ns in tiles_of(len(z[0]), columns)
    ]
    for ms, ns in tiles:
        run.reads["a"] += a[ms].size
        run.reads["b"] += b[:, ns].size
        run.writes["z"] += z[ms, ns].size

    rank = np.arange(rows)[:, None] + np.arange(columns)  # clocks after PE (0, 0)
    shadow = np.zeros((rows, columns))
    full = np.zeros((rows, columns), bool)  # shadows that hold a sum
    leaving: list[list[float]] = [[] for _ in range(columns)]
    shifting = np.zeros(columns, int)  # shifts that each column's shadows still owe
    clock = 0

    def shift_shadows() -> None:
        for column in np.flatnonzero(shifting):
            top = rows - shifting[column]  # rows above it have nothing left to send
            leaving[column].append(shadow[-1, column])
            run.busy("south", clock)
            shadow[top + 1 :, column] = shadow[top:-1, column]
            full[top, column] = False
            shifting[column] -= 1

    for ms, ns in tiles:
        west = padded(a[ms].T, (inner, rows))
        north = padded(b[:, ns], (inner, columns))
        east, south = np.zeros((rows, columns)), np.zeros((rows, columns))
        sums = np.zeros((rows, columns))
        steps = np.zeros((rows, columns), int)
        start = clock
        while (steps < inner).any():
            east = from_west(east, diagonal(west, clock - start))
            south = from_north(south, diagonal(north, clock - start))
            for port, stream in (("west", west), ("north", north)):
                if entering(stream, clock - start):
                    run.busy(port, clock)
            active = (clock - start >= rank) & (steps < inner)
            sums += np.where(active, east * south, 0.0)
            steps += active
            shift_shadows()
            if drain == "overlapped":
                done = active & (steps == inner)
                if (full & done).any():
                    raise AssertionError("a sum would overwrite one that has not left")
                shadow = np.where(done, sums, shadow)
                full |= done
                shifting[done[-1]] += rows
            clock += 1
        run.macs += int(steps[: z[ms, ns].shape[0], : z[ms, ns].shape[1]].sum())
        if drain == "explicit":
            for _ in range(rows):
                for column in range(columns):
                    leaving[column].append(sums[-1, column])
                run.busy("south", clock)
                sums = from_north(sums, np.zeros(columns))
                clock += 1
    run.cycles = clock
    while shifting.any():
        shift_shadows()
        clock += 1
    run.tail = clock - run.cycles
    for index, (ms, ns) in enumerate(tiles):
        for column in range(z[ms, ns].shape[1]):
            upwards = leaving[column][index * rows : (index + 1) * rows]
            z[ms, ns.start + column] = upwards[::-1][: z[ms, ns].shape[0]]
    return run
