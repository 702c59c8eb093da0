"""A processor that dies: the others end, and say which one it was.

A link to a dead process breaks, and one to a process that hangs times out. Each says only
which neighbour fell silent, and a neighbour may have ended because its own did. So every
processor gives a sign of life in the group's store, and one that ends by itself says why.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from elision.training.pipeline.runtime import torch_names

__all__ = ["LostProcessorError", "signs_of_life"]

#: Seconds between two signs of life, and how many may be missed: longer than a thread
#: that only sleeps is delayed on a busy machine.
_EVERY = 0.5
_MISSED = 4


class LostProcessorError(RuntimeError):
    """A processor of the pipeline died, failed or no longer answers.

    Attributes:
        lost: the ranks that did; empty where none could be found.
    """

    def __init__(self, message: str, lost: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.lost = lost


@contextmanager
def signs_of_life(run: str) -> Iterator[None]:
    """While the block runs, tell the other processors that this one lives.

    Args:
        run: a name for the run, the same on every processor and used once.

    Raises:
        LostProcessorError: communication failed in the block, naming who is lost.
    """
    rank = distributed.get_rank()
    store = torch_names.store_of_group(run)
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(_EVERY):
            try:
                store.add(f"alive/{rank}", 1)
            except RuntimeError:  # the store's own process is gone
                return

    store.add(f"alive/{rank}", 1)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
        _note(store, f"ended/{rank}", "finished")
    except RuntimeError as error:
        if not _is_broken_link(error):
            _note(store, f"failed/{rank}", _first_line(error))
            raise
        found = _named(error, store, rank, distributed.get_world_size())
        _note(store, f"ended/{rank}", "lost another")
        raise found from error
    except Exception as error:
        _note(store, f"failed/{rank}", _first_line(error))
        raise
    finally:
        stopped.set()
        thread.join()


def _is_broken_link(error: RuntimeError) -> bool:
    """Whether it is gloo's or NCCL's error for a peer that is gone or silent."""
    if isinstance(error, distributed.DistError):
        return True
    text = str(error).lower()
    return any(s in text for s in ("gloo", "nccl", "connection", "timed out", "socket"))


def _note(store: torch_names.Store, key: str, value: str) -> None:
    try:
        store.set(key, value)
    except RuntimeError:  # the store's own process is gone
        return


def _named(
    error: RuntimeError, store: torch_names.Store, rank: int, count: int
) -> LostProcessorError:
    """Who failed, or has given no sign of life for a while without having ended."""
    first = _first_line(error)
    others = [other for other in range(count) if other != rank]
    try:
        before = {other: store.add(f"alive/{other}", 0) for other in others}
        time.sleep(_EVERY * _MISSED)
        failed = {
            other: store.get(f"failed/{other}").decode()
            for other in others
            if store.check([f"failed/{other}"])
        }
        lost = [
            other
            for other in others
            if store.add(f"alive/{other}", 0) == before[other]
            and not store.check([f"ended/{other}"])
            and other not in failed
        ]
    except RuntimeError:
        return LostProcessorError(
            f"rank {rank}: the process that holds the group's store is lost ({first})"
        )
    if not (lost or failed):
        return LostProcessorError(
            f"rank {rank}: communication failed, and every other rank is alive or ended "
            f"for the same reason ({first})"
        )
    why = [f"rank {other} failed with {text!r}" for other, text in failed.items()]
    why += [f"rank {other} died or no longer answers" for other in lost]
    return LostProcessorError(
        f"rank {rank} ends, since {' and '.join(why)} ({first})", (*failed, *lost)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
