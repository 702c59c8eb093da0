"""Phases of one fold of a systolic array, from its sides and its stream.

They agree with the PE-level simulations (``pe_array``, ``pe_interleaved``): a port is busy
from the first clock in which any of its lanes carries a value to the last.
"""

from elision.accelerators.timing import Phase

__all__ = ["interleaved", "output_stationary", "stationary"]


def output_stationary(
    rows: int, columns: int, streamed: int, overlapped: bool
) -> tuple[Phase, ...]:
    """Both matrices stream, and the results drain at the end or under the next fold."""
    busy = rows + columns + streamed - 2
    begin = rows + streamed - 1 if overlapped else busy
    end = begin + columns - 1 + rows if overlapped else busy + rows
    return (
        Phase("west port", "stream A", 0, streamed + rows - 1),
        Phase("north port", "stream B", 0, streamed + columns - 1),
        Phase("PEs", "multiply", 0, busy),
        Phase("south port", "drain Z", begin, end),
    )


def stationary(
    rows: int, streamed: int, period: int, *, held: str, moving: str, preload: bool
) -> tuple[Phase, ...]:
    """One matrix is held, the other streams; preloading is done when a fold begins."""
    begin = 0 if preload else rows
    return (
        Phase("north port", f"load {held}", begin - rows, begin),
        Phase("west port", f"stream {moving}", begin, begin + streamed + rows - 1),
        Phase("PEs", "multiply", begin, period),
        Phase("south port", "Z leaves", begin + rows - 1, period),
    )


def interleaved(
    rows: int, columns: int, streamed: int, period: int, overlapped: bool
) -> tuple[Phase, ...]:
    """Both gradients of a layer; ``streamed`` rows of G stay two clocks in each PE."""
    stream = 2 * streamed
    done = rows + stream + rows + columns - 2
    drain = (period, period + rows) if overlapped else (done, period)
    return (
        Phase("north port", "load W", 0, rows),
        Phase(
            "north port", "X and partial sums of dX", rows, rows + stream + columns - 1
        ),
        Phase("west port", "stream G", rows, rows + stream + rows - 1),
        Phase("PEs", "multiply", rows, done),
        Phase("south port", "dX leaves", 2 * rows - 1, done - 1),
        Phase("south port", "drain dW", *drain),
    )
