"""Independent calls spread over processes, or over an executor of the caller's."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from multiprocessing import connection
from typing import Any, TypeVar

__all__ = ["pool", "processes", "spread"]

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
    with processes(workers) if executor is None else nullcontext(executor) as chosen:
        waiting = [chosen.submit(call) for call in calls]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:  # after a failure or an interruption nothing new is begun
            for future in waiting:
                future.cancel()


@contextmanager
def pool(workers: int, executor: Executor | None = None) -> Iterator[Executor]:
    """An executor for calls that follow from the results of others.

    After a failure or an interruption nothing new is begun.

    Args:
        workers: processes; 1: a call runs here, when it is submitted.
        executor: of the caller's, which is then given as it is and stays open.

    Example:
        >>> with pool(workers=1) as executor:
        ...     executor.submit(max, 1, 2).result()
        2
    """
    if executor is not None:
        yield executor
        return
    with _Here() if workers <= 1 else processes(workers) as own:
        yield own


class _Here(Executor):
    """Runs each call at once, in this process."""

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))  # an error is the caller's at once
        return done


@contextmanager
def processes(
    workers: int, begin: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """An executor of processes that end at once when this one is interrupted or killed.

    After a failure, what was begun is awaited, and nothing new is.

    Args:
        workers: processes.
        begin: what each process does first; picklable.
        arguments: of that.
    """
    # Spawned, because forking a process that runs threads can hang.
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    own = ProcessPoolExecutor(workers, context, _begin, (theirs, begin, arguments))
    with theirs, ours, own:
        try:
            yield own
        except Exception:
            raise
        except BaseException:  # an interruption, or a request to end
            ours.close()
            raise
        finally:
            own.shutdown(cancel_futures=True)


def _begin(
    pipe: Any,  # a connection, whose class is the system's
    begin: Callable[..., None] | None,
    arguments: tuple[Any, ...],
) -> None:
    """Have this process end when its parent closes the pipe, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel, pipe])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if begin is not None:
        begin(*arguments)
