"""Locks that a fork cannot leave locked.

A forked process has the thread that forked it and no other. What another thread of its
parent held at that moment stays locked in it for ever, and what that thread was writing
stays half written.
"""

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ["Lock"]


class Lock:
    """A re-entrant lock that is free in a forked process, unless the forking thread has it.

    Args:
        dropped: bound method; called in a forked process if another thread held the lock,
            to drop what that thread may have left half written. Its object is not kept
            alive.

    Example:
        >>> import os
        >>> lock = Lock()
        >>> with lock, lock:
        ...     "one thread at a time"
        'one thread at a time'
    """

    def __init__(self, dropped: Callable[[], Any] | None = None) -> None:
        self._lock = threading.RLock()
        self._dropped = None if dropped is None else weakref.WeakMethod(dropped)
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _renew(self) -> None:
        """In a forked process: be free."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return
        self._lock = threading.RLock()
        drop = None if self._dropped is None else self._dropped()
        if drop is not None:
            drop()


_LOCKS: weakref.WeakSet[Lock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in list(_LOCKS):
        lock._renew()


os.register_at_fork(after_in_child=_renew_all)
