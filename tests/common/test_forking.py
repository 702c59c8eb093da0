"""Locks after a fork: free in the child, whoever held them in the parent."""

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from elision.common.forking import Lock
from elision.common.locking import alone_in, locked


def in_child(work: Callable[[], bool]) -> bool:
    """What work says in a forked process."""
    child = os.fork()
    if not child:
        said = False
        try:
            said = work()
        finally:
            os._exit(0 if said else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def free(lock: Lock) -> bool:
    """Whether a thread of its own can take a lock."""
    got = []
    other = threading.Thread(target=lambda: [lock.__enter__(), got.append(True)])
    other.daemon = True  # it may wait for ever
    other.start()
    other.join(5)
    return bool(got)


class Holder:
    """Holds a lock in another thread until the end of the block."""

    def __init__(self) -> None:
        self.dropped = False
        self.lock = Lock(self.drop)
        self._holds, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def drop(self) -> None:
        self.dropped = True

    def _hold(self) -> None:
        with self.lock:
            self._holds.set()
            self._done.wait()

    def __enter__(self) -> "Holder":
        self._thread.start()
        self._holds.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def test_what_another_thread_held_is_free_in_the_child_and_dropped() -> None:
    with Holder() as holder:
        assert in_child(lambda: free(holder.lock) and holder.dropped)
        assert not holder.dropped


def test_what_the_forking_thread_holds_is_still_its_own() -> None:
    holder = Holder()
    with holder.lock:
        assert in_child(lambda: not holder.dropped and not free(holder.lock))


def test_a_free_lock_drops_nothing() -> None:
    holder = Holder()
    assert in_child(lambda: free(holder.lock) and not holder.dropped)


@pytest.mark.parametrize("taken", [locked, alone_in])
def test_a_child_that_was_forked_under_a_lock_does_not_keep_it(
    tmp_path: Path, taken: Callable[[Path], AbstractContextManager[None]]
) -> None:
    reading, writing = os.pipe()
    with taken(tmp_path):
        child = os.fork()
        if not child:  # lives until the parent has the lock again
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    os.close(reading)
    with alone_in(tmp_path):
        os.close(writing)
    os.waitpid(child, 0)
