"""One writer at a time, among the processes of a machine."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["alone_in", "is_held", "locked"]

_log = logging.getLogger("elision")

#: Time that a wait for a lock may take before it is told, and between two attempts: what
#: holds one for less writes a file (own choices).
_SILENT_SECONDS, _PAUSE_SECONDS = 2.0, 0.01

#: Time after which a folder that is locked counts as another process's: whoever only looks
#: (:func:`is_held`) holds the lock for less than a millisecond (own choice).
_LOOK_SECONDS = 0.1

#: What a file system that has no locks answers.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context in which no other process is in the same one; a killed one leaves it.

    A wait of more than two seconds is told in one line of the log.

    Args:
        path: a folder, or a file, which is made if it is not there.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    handle = os.open(path, flags, 0o666)
    try:
        _wait(handle, path)
        yield
    finally:
        _release(handle)


def _wait(handle: int, path: Path) -> None:
    """Take a lock as soon as no other process has it."""
    ends = time.monotonic() + _SILENT_SECONDS
    while time.monotonic() < ends:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    _log.warning("waiting for another process, which is at work at %s", path)
    fcntl.flock(handle, fcntl.LOCK_EX)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Context in which no other process works in a folder; a killed one leaves it.

    On a file system without locks nothing is locked.

    Args:
        folder: exists.

    Raises:
        ValueError: another process is in it.
        OSError: it cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            _take_soon(handle)
        except BlockingIOError:
            raise ValueError(
                f"{folder}: another process is at work in it; wait for its end, or give "
                "another folder with --out"
            ) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
        yield
    finally:
        _release(handle)


def _take_soon(handle: int) -> None:
    """Take a lock; BlockingIOError where a process keeps it longer than a look takes."""
    ends = time.monotonic() + _LOOK_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise
            time.sleep(_PAUSE_SECONDS)


def is_held(folder: Path) -> bool:
    """Whether a process works in a folder (:func:`alone_in`), which a look does not hinder.

    On a file system without locks none seems to.

    Args:
        folder: exists.

    Raises:
        OSError: it cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    finally:
        _release(handle)
    return False


def _release(handle: int) -> None:
    """Release a lock and close its file.

    Closing alone would leave it locked while a process lives that was forked meanwhile:
    that one has the same open file.
    """
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)
