"""Independent calls spread over processes, or over an executor of the caller's."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from multiprocessing import connection
from typing import TypeVar

__all__ = ["end_with_the_parent", "spread"]

T = TypeVar("T")


def spread(
    calls: Sequence[Callable[[], T]], workers: int, executor: Executor | None = None
) -> Iterator[T]:
    """Results of the calls, in the order in which they are ready.

    Args:
        calls: independent of each other, and picklable where a process runs them.
        workers: processes; 1: the calls run here, one after another.
        executor: runs the calls elsewhere, a cluster's for example; it stays open.

    Example:
        >>> list(spread([lambda: 1, lambda: 2], workers=1))
        [1, 2]
    """
    workers = min(workers, len(calls))
    if executor is None and workers <= 1:
        yield from (call() for call in calls)
        return
    own = None
    if executor is None:
        # Spawned, because forking a process that runs threads can hang.
        context = multiprocessing.get_context("spawn")
        own = ProcessPoolExecutor(workers, context, end_with_the_parent)
    with own or nullcontext():
        pool = executor or own
        assert pool is not None
        waiting = [pool.submit(call) for call in calls]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:  # after a failure or an interruption nothing new is begun
            if own:
                own.shutdown(cancel_futures=True)
            else:
                for future in waiting:
                    future.cancel()


def end_with_the_parent() -> None:
    """End this process at once when its parent is interrupted or killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
