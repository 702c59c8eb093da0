"""Writing files whole or not at all, and tensors with plain facts beside them."""

import csv
import io
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = [
    "is_alive",
    "is_partial",
    "load_tensors",
    "remove_left_partials",
    "replacing",
    "save_tensors",
    "to_csv",
    "without_nan",
    "write_json",
    "write_text",
]

#: Temporary files: ``.NAME.PROCESS.TOKEN.elision-partial``.
_PARTIAL = re.compile(r"\..+\.(?P<process>\d+)\.[0-9a-f]{8}\.elision-partial")


def is_partial(path: Path) -> bool:
    """True for a temporary file of this library, of a process at work or killed."""
    return _PARTIAL.fullmatch(path.name) is not None


def remove_left_partials(folder: Path) -> None:
    """Remove temporary files that killed processes of this machine left below a folder.

    A file of a living process stays, and every file that this library has not named.
    """
    for path in [p for p in folder.rglob(".*") if is_partial(p)]:
        named = _PARTIAL.fullmatch(path.name)
        if named is not None and not is_alive(int(named["process"])):
            path.unlink(missing_ok=True)


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
    old file or the new one. A symbolic link at ``path`` is replaced, never followed.

    Raises:
        OSError: the file cannot be written (no space, no folder); the message names
            it, and no temporary file remains.
    """
    temporary = path.with_name(
        f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.elision-partial"
    )
    try:
        # Made here, so that nothing that lies there already is written through.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{path}: could not be written: {reason}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _to_disk(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")


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


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Any) -> None:
    """Write tensors as safetensors with ``facts`` as JSON in the header.

    Args:
        path: the file.
        tensors: by name, of any shape and dtype that safetensors has.
        facts: plain values, lists and dictionaries, as JSON holds them.

    Raises:
        OSError: the file cannot be written; no temporary file remains.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    header = {"elision": json.dumps(facts)}
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=header)
        except SafetensorError as error:
            raise OSError(error) from error


def load_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], Any]:
    """Read what :func:`save_tensors` wrote.

    Args:
        path: the file.
        what: kind of file expected ("trace", "checkpoint"), for messages.

    Returns:
        The tensors, on the CPU, and the facts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, corrupted or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {what} file")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("elision", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ValueError(
            f"{path}: not a complete {what} file, truncated or of another kind ({error})"
        ) from error
    if facts is None:
        raise ValueError(
            f"{path}: a safetensors file, but not a {what} of this library"
        )
    return tensors, facts


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV, with every column of any row; a value that a row lacks stays empty.

    Example:
        >>> print(to_csv([{"a": 1}, {"b": 2}]), end="")
        a,b
        1,
        ,2
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
