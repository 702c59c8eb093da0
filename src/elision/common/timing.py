"""One timer: candidates in turns, so that a change of the machine's speed meets all.

Which clock is quoted follows from ``torch.get_num_threads()``. With one thread, torch's
CPU kernels, those of this library and the backward pass all run in the calling thread, so
its CPU time is their time; other processes and other threads of this one cannot lengthen
it. With more threads the wall clock is quoted.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

__all__ = [
    "Elapsed",
    "elapsed",
    "fastest",
    "interleaved",
    "quoted_clock",
    "with_threads",
]


@dataclass(frozen=True)
class Elapsed:
    """Seconds that one call took, by three clocks.

    Attributes:
        wall: of the wall clock.
        process: CPU time of all threads of this process.
        thread: CPU time of the calling thread.

    Example:
        >>> Elapsed(wall=2.0, process=1.5, thread=1.0).process
        1.5
    """

    wall: float
    process: float
    thread: float

    @property
    def quoted(self) -> float:
        """Seconds by :func:`quoted_clock`."""
        return getattr(self, quoted_clock())


def quoted_clock() -> str:
    """``"thread"`` where torch computes with one thread, else ``"wall"``."""
    return "thread" if torch.get_num_threads() == 1 else "wall"


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Context manager: so many threads of torch; 0 leaves its setting as it is.

    Example:
        >>> with with_threads(1):
        ...     quoted_clock()
        'thread'
    """
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def elapsed(call: Callable[[], object]) -> Elapsed:
    """Call once and return the seconds it took."""
    wall, process, thread = time.perf_counter(), time.process_time(), time.thread_time()
    call()
    return Elapsed(
        thread=time.thread_time() - thread,
        process=time.process_time() - process,
        wall=time.perf_counter() - wall,
    )


def fastest(
    candidates: Mapping[str, Callable[[], object]], trials: int
) -> dict[str, float]:
    """Best seconds of each candidate, in turns, after one call to warm up.

    Args:
        candidates: functions without arguments, by name.
        trials: timed calls of each.

    Returns:
        Seconds by :func:`quoted_clock`.
    """
    best = dict.fromkeys(candidates, math.inf)
    for turn in range(trials + 1):
        for name, call in candidates.items():
            seconds = elapsed(call).quoted
            if turn:
                best[name] = min(best[name], seconds)
    return best


def interleaved(
    candidates: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, after one call of each to warm up.

    A round calls every candidate once; each round begins with the next one.

    Args:
        candidates: functions without arguments, by name.
        rounds: timed calls of each.

    Returns:
        Seconds by :func:`quoted_clock`, a list of ``rounds`` per candidate.
    """
    names = list(candidates)
    for call in candidates.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(elapsed(candidates[name]).quoted)
    return seconds
