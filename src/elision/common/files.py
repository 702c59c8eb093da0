"""Writing files whole or not at all, and tensors with plain facts beside them."""

import csv
import io
import json
import math
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elision.common.cells import cell
from elision.common.printable import printable

__all__ = [
    "append_text",
    "check_no_links_out",
    "is_alive",
    "is_partial",
    "load_facts",
    "load_tensors",
    "read_json",
    "remove_left_partials",
    "replacing",
    "save_tensors",
    "taken_apart",
    "to_csv",
    "without_nan",
    "write_json",
    "write_text",
]

#: Temporary files: ``.NAME.PROCESS.TOKEN.elision-partial``.
_PARTIAL = re.compile(r"\..+\.(?P<process>\d+)\.[0-9a-f]{8}\.elision-partial")

#: Names in a folder that are listed at every write into it; one with n times as many is
#: listed at every n-th (own choice: a listing of so many takes less than the write).
_FEW = 256

#: Key of the facts in a safetensors header. There is one key alone, since safetensors
#: writes several in any order, and equal runs write equal files.
_FACTS = "elision"
#: Among the facts: the checksum of the header, which comes first, and those of tensors.
_OF_HEADER, _OF_TENSORS = "elision.header", "elision.tensors"
#: What stands in the place of the header's checksum while that is computed.
_OPEN = "0" * 8


def is_partial(path: Path) -> bool:
    """True for a temporary file of this library, of a process at work or killed."""
    return _PARTIAL.fullmatch(path.name) is not None


def remove_left_partials(folder: Path) -> None:
    """Remove temporary files that killed processes of this machine left below a folder.

    A file of a living process stays, and every file that this library has not named.
    """
    _remove_left(list(folder.rglob(".*")))


def _remove_left(paths: Iterable[Path]) -> None:
    """Remove those that are temporary files of processes that are no more."""
    for path in paths:
        named = _PARTIAL.fullmatch(path.name)
        if named is not None and not is_alive(int(named["process"])):
            path.unlink(missing_ok=True)


@dataclass
class _Listing:
    """Temporary files of a large folder, and the writes until it is listed again."""

    names: list[str]
    writes: int


#: Listings of large folders, by their absolute path.
_listings: dict[str, _Listing] = {}


def _half_written(path: Path) -> list[Path]:
    """Temporary files of one file."""
    folder = os.path.abspath(path.parent)
    kept = _listings.get(folder)
    if kept is None or kept.writes <= 0:
        found = os.listdir(folder)
        kept = _Listing([n for n in found if _PARTIAL.fullmatch(n)], len(found) // _FEW)
        if kept.writes:
            _listings[folder] = kept
        else:
            _listings.pop(folder, None)
    kept.writes -= 1
    own = f".{path.name}."
    return [path.with_name(name) for name in kept.names if name.startswith(own)]


def is_alive(process: int) -> bool:
    """Whether this machine has a process of a number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file to write to; rename it to ``path`` if all went well.

    The content is on the disk before the new name is, so that a loss of power leaves the
    old file or the new one. A symbolic link at ``path`` is replaced, never followed. What
    killed processes of this machine left half-written of this file is removed, as far as
    the folder's last listing tells: a large folder is not listed at every write.

    Raises:
        OSError: the file cannot be written (no space, no folder); the message names
            it, and no temporary file remains.
    """
    temporary = path.with_name(
        f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.elision-partial"
    )
    with suppress(OSError):  # a folder that cannot be listed, or is gone
        _remove_left(_half_written(path))
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Made here, so that nothing that lies there already is written through.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            _to_disk(temporary)
            os.replace(temporary, path)
            os.fsync(folder)
        finally:
            with suppress(OSError):  # also where the folder was moved away meanwhile
                os.unlink(temporary.name, dir_fd=folder)
            os.close(folder)
    except OSError as error:
        raise _named(path, error) from error


def _to_disk(path: Path) -> None:
    """Have the system write a file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a text file, all of it or nothing.

    One process at a time may do so. A symbolic link at ``path`` is replaced by a file
    with the content of both, never written through.

    Raises:
        OSError: the file cannot be written; the message names it, and it is as before.
    """
    if path.is_symlink():
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        return write_text(path, before + text)
    is_new = not path.exists()
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                _write_all(file, text.encode("utf-8"))
            except OSError:
                file.truncate(size)
                if is_new:
                    path.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _named(path, error) from error


def _write_all(file: io.FileIO, data: bytes) -> None:
    """Write bytes, of which a disk that fills takes a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _named(path: Path, error: OSError) -> OSError:
    """An error that says which file could not be written, and why."""
    return OSError(f"{path}: could not be written: {error.strerror or error}")


def check_no_links_out(folder: Path) -> None:
    """Raise ValueError if a folder below one is a link to somewhere outside of it.

    What is written into such a folder would go where nobody named a place for it. The
    folder itself may be a link: whoever names it means its target.

    Args:
        folder: is searched through to its depth; need not exist.
    """
    top = folder.resolve()
    for place, folders, _ in os.walk(folder):
        for path in (Path(place, name) for name in folders):
            if path.is_symlink() and not path.resolve().is_relative_to(top):
                raise ValueError(
                    f"{path}: is a symbolic link to a folder outside of {folder}, where "
                    "nothing is written; remove the link, or give another folder with "
                    "--out"
                )


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path, what: str, mend: str) -> dict[str, Any]:
    """Read an object that :func:`write_json` wrote.

    Args:
        path: the file.
        what: it holds, in words, for messages.
        mend: what to do where it is damaged, for messages.

    Raises:
        ValueError: the file is damaged, or of another kind.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: damaged, {what} cannot be read ({error}); {mend}"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: damaged, {what} is an object of JSON, and this is "
            f"{type(found).__name__}; {mend}"
        )
    return found


def without_nan(value: Any) -> Any:
    """Plain values with None for NaN and infinities, which JSON does not have.

    Example:
        >>> without_nan({"losses": [0.5, float("nan")]})
        {'losses': [0.5, None]}
    """
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write tensors as safetensors with ``facts`` as JSON in the header.

    Each tensor has a checksum (CRC-32) in the header, and so has the header itself, so
    that :func:`load_tensors` finds every burst of at most 32 bits, and any other change
    but for one in 2**32 by chance.

    Args:
        path: the file.
        tensors: by name, of any shape and dtype that safetensors has.
        facts: by name, plain values, lists and dictionaries, as JSON holds them.

    Raises:
        OSError: the file cannot be written; no temporary file remains.
    """
    from safetensors.torch import save

    contiguous = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    sums = {name: _crc(x) for name, x in contiguous.items()}
    header = {_FACTS: json.dumps({_OF_HEADER: _OPEN, _OF_TENSORS: sums, **facts})}
    # Not save_file: it writes by a temporary file of its own, which a killed process
    # leaves under a name that is not ours, and which the user alone may read.
    data = save(contiguous, metadata=header)
    raw = data[_LENGTH : _LENGTH + int.from_bytes(data[:_LENGTH], "little")]
    at = _LENGTH + raw.index(_mark(_OPEN))
    with replacing(path) as temporary, temporary.open("r+b") as file:
        file.write(data)
        file.seek(at)
        file.write(_mark(f"{zlib.crc32(raw):08x}"))


def load_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], Any]:
    """Read what :func:`save_tensors` wrote, with checksums or, as earlier files, without.

    Args:
        path: the file.
        what: kind of file expected ("trace", "checkpoint"), for messages.

    Returns:
        The tensors, on the CPU, and the facts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, corrupted (its header, or the tensor named) or
            of another kind.
    """
    with _reading(path, what) as (file, facts, sums):
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name, checksum in sums.items():
        if _crc(tensors[name]) != checksum:
            raise ValueError(
                f"{path}: a corrupted {what} file: the bytes of tensor {name!r} do not "
                "fit their checksum"
            )
    return tensors, facts


def load_facts(path: Path, what: str) -> Any:
    """Read the facts of :func:`save_tensors` alone: the header of a file of any size.

    Args:
        path: the file.
        what: kind of file expected, for messages.

    Raises:
        FileNotFoundError, ValueError: as for :func:`load_tensors`; no tensor is looked at.
    """
    with _reading(path, what) as (_, facts, _):
        return facts


@contextmanager
def _reading(path: Path, what: str) -> Iterator[tuple[Any, Any, dict[str, int]]]:
    """Context of an open file of tensors: it, its facts, the checksums of its tensors."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {what} file")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(_FACTS, "null"))
            if facts is None:
                raise ValueError(
                    f"{path}: a safetensors file, but not a {what} of this library"
                )
            yield file, facts, _checksums(path, what, facts)
    except (
        SafetensorError,
        json.JSONDecodeError,
        OSError,
        RecursionError,
    ) as error:
        said = " ".join(str(error).split())  # it quotes what it read, lines and all
        raise ValueError(
            f"{path}: not a complete {what} file, truncated or of another kind ({said})"
        ) from error


@contextmanager
def taken_apart(path: Path, otherwise: str) -> Iterator[None]:
    """Context in which what a file held is taken apart; every failure names the file.

    A checksum says that a file is what was written, not that this library wrote it: facts
    of another kind, shape or range raise anything.

    Args:
        path: the file.
        otherwise: what is wrong with one of another form, such as "does not fit this run".

    Raises:
        ValueError: it is of another form.

    Example:
        >>> with taken_apart(Path("run.json"), "not a run's file"):
        ...     {"seed": 1}["history"]
        Traceback (most recent call last):
        ValueError: run.json: not a run's file: 'history'
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path}: {otherwise}: {said}") from error


#: Bytes of the length of a safetensors header, which stand before it.
_LENGTH = 8


def _raw_header(path: Path) -> bytes:
    """The bytes of a safetensors header."""
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(_LENGTH), "little"))


def _mark(checksum: str) -> bytes:
    """The beginning of the facts; its first two quotes are in no quoted text."""
    return rf'"{_FACTS}":"{{\"{_OF_HEADER}\": \"{checksum}\"'.encode()


def _checksums(path: Path, what: str, facts: Any) -> dict[str, int]:
    """Take the checksums of tensors out of the facts of a header that is as written.

    Args:
        path: the file.
        what: kind of file.
        facts: of the header.

    Returns:
        By name; none, if the file is of before it had any.

    Raises:
        ValueError: the header is not what was written.
    """
    ours = isinstance(facts, dict) and (_OF_HEADER in facts or _OF_TENSORS in facts)
    if not ours:
        return {}
    checksum = facts.pop(_OF_HEADER, None)
    raw = _raw_header(path).replace(_mark(str(checksum)), _mark(_OPEN), 1)
    if f"{zlib.crc32(raw):08x}" != checksum:
        raise ValueError(
            f"{path}: a corrupted {what} file: its header does not fit its checksum"
        )
    return facts.pop(_OF_TENSORS)


def _crc(x: Tensor) -> int:
    """CRC-32 of a contiguous tensor's bytes."""
    return zlib.crc32(x.reshape(-1).view(torch.uint8).numpy().data)


def to_csv(rows: list[dict[str, Any]], head: Sequence[str] = ()) -> str:
    """Rows as CSV, with every column of any row; a value that a row lacks stays empty.

    A text that a spreadsheet would take for a formula has an apostrophe before it, and
    control characters are written as in Python's literals.

    Args:
        rows: of the table.
        head: columns of a table without rows.

    Example:
        >>> print(to_csv([{"a": 1}, {"b": 2}]), end="")
        a,b
        1,
        ,2
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row)) or list(head)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _shown(v) for name, v in row.items()} for row in rows)
    return text.getvalue()


def _shown(value: Any) -> Any:
    """A value of a table; its text as a terminal shows it, and never a formula."""
    return printable(cell(value), keep="\n\t") if isinstance(value, str) else value
