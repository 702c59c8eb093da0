"""Measured memory of a piece of work, by the allocator's own account.

On an accelerator the allocator's counters hold it. On the CPU there are none, and the
resident set of the process is useless (the C allocator keeps what it has been given),
so the allocations and releases that torch's profiler reports are replayed as a running
sum. Memory that does not come from torch's allocator is not seen in either case.
"""

import gc
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Peak", "measure_peak", "profiler_is_running", "watch_peak"]


@dataclass
class Peak:
    """Bytes relative to the beginning of the measured work.

    Attributes:
        peak_bytes: the most that was allocated at any moment.
        end_bytes: what is still allocated at the end.

    Example:
        >>> def work():
        ...     temporary = torch.zeros(1024)  # 4096 bytes
        ...     return temporary.sum()
        >>> found = measure_peak(work)
        >>> found.peak_bytes >= 4096, found.end_bytes < 4096
        (True, True)
    """

    peak_bytes: int = 0
    end_bytes: int = 0


def profiler_is_running() -> bool:
    """True if somebody, in whatever thread, records with torch's profiler."""
    anywhere = torch.autograd.profiler._is_profiler_enabled
    return anywhere or torch.autograd._profiler_enabled()  # pyright: ignore[reportPrivateImportUsage]


@contextmanager
def watch_peak(device: str | torch.device = "cpu"):
    """Measure the memory that the block allocates on ``device``.

    Yields:
        Peak: filled in when the block is left.

    Raises:
        RuntimeError: on the CPU, if a profiler is already running, which a second one
            would end and empty.
    """
    if torch.device(device).type == "cpu" and profiler_is_running():
        raise RuntimeError(
            "memory on the CPU is measured by torch.profiler, and another one is "
            "running, which that would end: measure outside of its block"
        )
    measured = Peak()
    gc.collect()
    if torch.device(device).type != "cpu":
        where = torch.device(device).index  # None: the current device
        torch.accelerator.synchronize(where)
        before = torch.accelerator.memory_allocated(where)
        torch.accelerator.reset_peak_memory_stats(where)
        try:
            yield measured
        finally:
            torch.accelerator.synchronize(where)
            peak = torch.accelerator.max_memory_allocated(where)
            measured.peak_bytes = peak - before
            measured.end_bytes = torch.accelerator.memory_allocated(where) - before
        return
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield measured
    live = 0
    for event in _memory_events(recorded):
        live += event.nbytes()
        measured.peak_bytes = max(measured.peak_bytes, live)
    measured.end_bytes = live


def measure_peak(work: Callable[[], Any], device: str | torch.device = "cpu") -> Peak:
    """Measure the memory that ``work()`` allocates; its result is alive at the end.

    Args:
        work: called once.
        device: whose allocator is watched.
    """
    with watch_peak(device) as measured:
        result = work()
    del result
    return measured


def _memory_events(recorded: profile) -> list[Any]:
    """The allocations (positive) and releases (negative) on the CPU, in order."""
    assert recorded.profiler is not None
    results = recorded.profiler.kineto_results
    assert results is not None
    memory = [
        event
        for event in results.events()
        if event.name() == "[memory]" and event.device_type().name == "CPU"
    ]
    return sorted(memory, key=lambda event: event.start_ns())
