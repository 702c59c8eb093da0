"""Scratch files: many pieces of data in one unnamed file.

A process may hold few files open at once (256 by default on some systems), and a
forward pass may offload thousands of tensors. All that goes to one directory therefore
shares one file, which ends with the last piece in it.
"""

import os
import tempfile
import threading
import weakref
from collections import deque

__all__ = ["Piece", "scratch_file"]


class ScratchFile:
    """An unnamed file whose free stretches are used again.

    Args:
        directory: where it lies.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self._descriptor, path = tempfile.mkstemp(prefix="elision-", dir=directory)
        weakref.finalize(self, os.close, self._descriptor)
        os.unlink(path)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._end = 0
        self._gaps: list[tuple[int, int]] = []  # (first, last + 1), in order
        self._returned: deque[tuple[int, int]] = deque()

    def write(self, data: memoryview) -> int:
        """Write a piece; where it begins.

        Raises:
            OSError: it does not fit on the disk.
        """
        first = self._take(len(data))
        try:
            at = 0
            while at < len(data):
                at += os.pwrite(self._descriptor, data[at:], first + at)
        except BaseException:
            self.give_back(first, len(data))
            raise
        return first

    def read(self, first: int, target: memoryview) -> None:
        """Fill ``target`` with what begins at ``first``."""
        at = 0
        while at < len(target):
            got = os.preadv(self._descriptor, [target[at:]], first + at)
            if not got:
                raise OSError(f"a scratch file ends at {first + at} bytes")
            at += got

    def give_back(self, first: int, size: int) -> None:
        """Let the stretch be used again; safe in finalizers and in forked processes."""
        if os.getpid() != self._process or not size:
            return  # what a child process drops is still its parent's
        self._returned.append((first, first + size))
        # A finalizer may interrupt whoever holds the lock, who then sees to it.
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _take(self, size: int) -> int:
        with self._lock:
            self._settle()
            for index, (first, last) in enumerate(self._gaps):
                if last - first >= size:
                    self._gaps[index : index + 1] = (
                        [(first + size, last)] if last - first > size else []
                    )
                    return first
            first, self._end = self._end, self._end + size
            return first

    def _settle(self) -> None:
        """Merge what was given back; cut off what is free at the end."""
        if not self._returned:
            return
        while self._returned:
            self._gaps.append(self._returned.popleft())
        merged: list[tuple[int, int]] = []
        for first, last in sorted(self._gaps):
            if merged and merged[-1][1] == first:
                merged[-1] = merged[-1][0], last
            else:
                merged.append((first, last))
        if merged[-1][1] == self._end:
            self._end = merged.pop()[0]
            os.ftruncate(self._descriptor, self._end)
        self._gaps = merged


class Piece:
    """Data in a scratch file, until the object is gone.

    Args:
        data: the bytes.
        directory: where the file lies.

    Raises:
        OSError: the data cannot be written.

    Example:
        >>> piece = Piece(memoryview(b"abc"), tempfile.gettempdir())
        >>> target = bytearray(3)
        >>> piece.read(memoryview(target))
        >>> target
        bytearray(b'abc')
    """

    def __init__(self, data: memoryview, directory: str) -> None:
        self._file = scratch_file(directory)
        self._first = self._file.write(data)
        weakref.finalize(self, self._file.give_back, self._first, len(data))

    def read(self, target: memoryview) -> None:
        """Fill ``target`` with the data."""
        self._file.read(self._first, target)


_files: "weakref.WeakValueDictionary[str, ScratchFile]" = weakref.WeakValueDictionary()
_opening = threading.Lock()


def scratch_file(directory: str) -> ScratchFile:
    """The file that this process has in a directory; a new one where there is none."""
    with _opening:
        file = _files.get(directory)
        if file is None:
            file = _files[directory] = ScratchFile(directory)
        return file


def _forget_files() -> None:
    """In a forked process: leave the parent's files alone, whoever held the lock."""
    global _opening
    _opening = threading.Lock()
    _files.clear()


os.register_at_fork(after_in_child=_forget_files)
