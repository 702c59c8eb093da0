"""PE-level simulation of interleaved gradients, one clock at a time.

The oracle of the closed forms in :mod:`elision.accelerators.systolic.intergrad`, built
of the same registers and links as the plain arrays of
:mod:`elision.accelerators.systolic.pe_array`.
"""

import numpy as np

from elision.accelerators.systolic.pe_array import (
    Run,
    diagonal,
    entering,
    from_north,
    from_west,
    padded,
    tiles_of,
)

__all__ = ["interleaved"]


def interleaved(
    g: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    rows: int,
    columns: int,
    drain: str = "overlapped",
    learning_rate: float | None = None,
) -> Run:
    """Both gradients of ``Y = X · Wᵀ`` in one pass: ``dX = G · W`` and ``dW = Gᵀ · X``.

    PE (o, j) holds W[o, j] and accumulates dW[o, j]. G[m, o] enters row o at clock
    2m + o and stays in every PE for two clocks. In the first the PE adds G·W to the
    partial sum of dX that comes from the north; in the second the same vertical link
    brings X[m, j], and the PE adds G·X to its accumulator.

    The vertical links also load W and drain dW. With ``drain="overlapped"`` one chain
    does both: the next tile's W shifts in at the north while this tile's dW leaves at
    the south.

    Args:
        g: (m, o).
        x: (m, j).
        w: (o, j).
        rows: PEs of a column.
        columns: PEs of a row.
        drain: ``"overlapped"`` or ``"explicit"``.
        learning_rate: if given, update in the array: accumulators start from W, and X
            is scaled by −η where it enters (after dX's slot), so that W − η·dW drains.

    Returns:
        A run with the results ``dx`` (m, j) and ``dw`` (o, j), the latter the new W if
        the update is done in the array.
    """
    dx, dw = np.zeros_like(x, float), np.zeros_like(w, float)
    run = Run({"dx": dx, "dw": dw})
    scale = 1.0 if learning_rate is None else -learning_rate
    chain = np.zeros((rows, columns))  # what the vertical links shift between tiles
    previous: tuple[slice, slice] | None = None

    def drained(tile: tuple[slice, slice], southwards: list[np.ndarray]) -> None:
        """Store what left at the south: the last row first."""
        block = np.array(southwards[::-1])
        dw[tile] = block[: dw[tile].shape[0], : dw[tile].shape[1]]
        run.writes["dw"] += dw[tile].size

    def shift(entering_rows: np.ndarray, leaves: bool) -> list[np.ndarray]:
        """Shift a tile in at the north, last row first; return what leaves."""
        nonlocal chain
        southwards = []
        for row in entering_rows[::-1]:
            southwards.append(chain[-1])
            chain = from_north(chain, row)
            if leaves:
                run.busy("south", run.cycles)
            run.cycles += 1
        return southwards

    for js in tiles_of(w.shape[1], columns):
        for os in tiles_of(len(w), rows):
            shares = previous is not None and drain == "overlapped"
            for clock in range(run.cycles, run.cycles + rows):
                run.busy("north", clock)
            southwards = shift(padded(w[os, js], (rows, columns)), leaves=shares)
            if previous is not None and shares:
                drained(previous, southwards)
            held = chain.copy()
            sums = np.zeros_like(held) if learning_rate is None else held.copy()
            tile_g = padded(g[:, os], (len(g), rows))
            tile_x = scale * padded(x[:, js], (len(x), columns))
            tile_dx, steps = _stream(run, tile_g, tile_x, held, sums)
            dx[:, js] += tile_dx[:, : x[:, js].shape[1]]
            run.reads.update(w=w[os, js].size, g=g[:, os].size, x=x[:, js].size)
            run.writes["dx"] += x[:, js].size
            run.macs += int(steps[: w[os].shape[0], : w[:, js].shape[1]].sum())
            chain = sums
            if drain == "explicit":
                drained((os, js), shift(np.zeros((rows, columns)), leaves=True))
            previous = (os, js)
    if drain == "overlapped" and previous is not None:
        end = run.cycles
        drained(previous, shift(np.zeros((rows, columns)), leaves=True))
        run.tail, run.cycles = run.cycles - end, end
    return run


def _stream(
    run: Run, g: np.ndarray, x: np.ndarray, held: np.ndarray, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Stream one tile: ``sums`` accumulates dW in place.

    Returns:
        dX of the tile, (m, columns), and the products that each PE did.
    """
    (rows, columns), length = held.shape, len(g)
    west = np.repeat(g, 2, axis=0)  # stays at the edge, too, for two clocks
    north = np.zeros((2 * length, columns))
    north[1::2] = x  # even slots: partial sums that start from zero
    dx = np.zeros((length, columns))
    rank = np.arange(rows)[:, None] + np.arange(columns)  # clocks after PE (0, 0)
    steps = np.zeros((rows, columns), int)
    east, south = np.zeros((rows, columns)), np.zeros((rows, columns))
    collected = clock = 0
    while collected < dx.size or (steps < 2 * length).any():
        for port, stream in (("west", west), ("north", north)):
            if entering(stream, clock):
                run.busy(port, run.cycles + clock)
        first = (clock - rank) % 2 == 0  # PEs in the first of their two clocks
        active = (clock >= rank) & (steps < 2 * length)
        east = np.where(first, from_west(east, diagonal(west, clock)), east)
        arriving = from_north(south, diagonal(north, clock))
        south = np.where(first, arriving + east * held, arriving)
        sums += np.where(active & ~first, east * arriving, 0.0)
        steps += active
        for column in range(columns):
            slot = clock - (rows - 1) - column
            if 0 <= slot < 2 * length and slot % 2 == 0:
                dx[slot // 2, column] = south[-1, column]
                run.busy("south", run.cycles + clock)
                collected += 1
        clock += 1
    run.cycles += clock
    return dx, steps
