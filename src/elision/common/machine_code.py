"""Functions that Numba compiles, with a cache on disk that damage cannot stop.

Numba keeps machine code in pickled files beside the source, or in the user's cache. A
damaged file would end the program that reads it, and a flipped bit of the code would run.
Here every file ends with a digest, belongs to the user alone, and is compiled anew where
either does not hold.
"""

import functools
import gc
import hashlib
import io
import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elision.common.files import replacing
from elision.common.locking import locked

__all__ = ["compiled_once"]

_log = logging.getLogger("elision")

#: Bytes of the digest at the end of a file.
_DIGEST_BYTES = 16


def compiled_once(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that has Numba compile a function and keeps the machine code.

    Where no folder can be written to, it is compiled in each process.

    Args:
        **options: of ``numba.njit``, without ``cache``.

    Example:
        >>> @compiled_once(nogil=True)
        ... def doubled(x):
        ...     return 2 * x
        >>> doubled.py_func(4)
        8
    """

    def decorated(function: Callable[..., Any]) -> Any:
        import numba
        from numba.core import config

        dispatcher: Any = numba.njit(**options)(function)
        try:
            # What enable_caching of Numba's dispatchers sets.
            dispatcher._cache = _cache_class()(dispatcher.py_func)
        except RuntimeError as error:  # Numba found no folder for it
            _tell_once("any folder", str(error))
        else:
            asked = getattr(config, "CACHE_DIR", "")  # Numba sets it by name
            _tell_if_elsewhere(asked, dispatcher._cache.cache_path)
        return dispatcher

    return decorated


@functools.cache
def _cache_class() -> Any:
    """Numba's cache of compiled functions, made to distrust its files."""
    from numba.core.caching import FunctionCache, IndexDataCacheFile

    class CheckedFile(IndexDataCacheFile):
        """Index and code of one function, each with its digest behind it."""

        def _load_index(self) -> Any:
            try:
                _content(self._index_path)
                return super()._load_index()
            except Exception:  # whatever a damaged pickle raises
                return {}

        def _load_data(self, name: str) -> Any:
            try:
                _content(self._data_path(name))
                return super()._load_data(name)
            except Exception as error:
                raise OSError(f"{name}: {error}") from error  # which means: compile

        def save(self, key: Any, data: Any) -> None:
            # The index comes last: what is killed in between leaves no name of code that
            # is another's. Two processes would take one name for two functions.
            with locked(Path(self._cache_path)):
                names = self._load_index()
                free = (
                    n
                    for n in map(self._data_name, itertools.count(1))
                    if n not in {*names.values()}
                )
                name = names.get(key) or next(free)
                self._save_data(name, data)
                self._save_index(names | {key: name})

        def _open_for_write(self, filepath: str) -> Any:
            return _with_digest(Path(filepath))

    class CheckedCache(FunctionCache):
        """Cache whose failures cost a compilation, and nothing else."""

        def __init__(self, py_func: Any) -> None:
            super().__init__(py_func)
            known = self._cache_file
            self._cache_file = CheckedFile(
                cache_path=known._cache_path,
                filename_base=self._impl.filename_base,
                source_stamp=known._source_stamp,
            )

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # code of another Numba, or damaged where no digest is
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            # Called when a function was compiled: the frames of Numba's own exceptions
            # refer to the arguments of the call, and would keep their memory.
            gc.collect()
            try:
                super().save_overload(sig, data)
            except OSError as error:  # full, or no longer writable: it is in memory
                _tell_once(self.cache_path, error.strerror or str(error))

    return CheckedCache


@functools.cache
def _tell_once(folder: str, reason: str) -> None:
    """Say that a folder keeps no machine code, at the first function that it does not."""
    _log.warning(
        "cannot keep compiled functions in %s (%s); each process compiles its own. Set "
        "NUMBA_CACHE_DIR to a folder that can be written",
        folder,
        reason,
    )


@functools.cache
def _tell_if_elsewhere(asked: str, found: str) -> None:
    """Say that machine code is kept in another folder than the user's.

    Numba passes over a folder that it cannot write to, and takes its next one in silence.
    """
    if asked and not Path(found).resolve().is_relative_to(Path(asked).resolve()):
        _log.warning(
            "NUMBA_CACHE_DIR is %s, which is no folder that can be written to; compiled "
            "functions are kept in %s",
            asked,
            found,
        )


@contextmanager
def _with_digest(path: Path) -> Iterator[io.BytesIO]:
    """Context of a file's content, which is written with its digest behind it."""
    content = io.BytesIO()
    yield content
    kept = content.getvalue()
    digest = hashlib.blake2b(kept, digest_size=_DIGEST_BYTES).digest()
    with replacing(path) as temporary:
        temporary.write_bytes(kept + digest)


def _content(path: str) -> bytes:
    """A file's content, before its digest.

    Raises:
        OSError: there is none, others could have written it, or it is damaged.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        content = file.read()
    if found.st_uid not in (os.geteuid(), 0):
        raise PermissionError(f"{path} belongs to another user")
    if found.st_mode & stat.S_IWOTH:
        raise PermissionError(f"others can write to {path}")
    kept, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.blake2b(kept, digest_size=_DIGEST_BYTES).digest() != digest:
        raise OSError(f"{path} is damaged")
    return kept
