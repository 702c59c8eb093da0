"""A topology file taken apart into lines of cells."""

import codecs
import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

__all__ = ["lines_of"]

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def lines_of(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Numbers, from 1, and cells of the lines that hold something.

    Cells are separated by commas, semicolons or tabs, whichever the first line has most
    of, and stripped. A cell that begins with ``#`` ends its line: the rest is a comment.

    Raises:
        ValueError: the file is no text.
        OSError: it cannot be read.
    """
    text = _decoded(Path(path).read_bytes(), path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(StringIO(text, newline=None), delimiter=separator)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            comment = next(
                (i for i, cell in enumerate(stripped) if cell.startswith("#")), None
            )
            stripped = stripped[:comment]
            while stripped and not stripped[-1]:
                stripped.pop()
            if stripped:
                yield reader.line_num, stripped
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error


def _decoded(data: bytes, path: str | Path) -> str:
    """The text, by its mark; without one UTF-8, or else Latin-1, which takes any byte."""
    encoding = next(
        (name for mark, name in _MARKS.items() if data.startswith(mark)), None
    )
    if encoding is None and b"\0" in data:
        raise ValueError(
            f"{path}: not a text in UTF-8; a file in UTF-16 or UTF-32 must begin with "
            "its byte order mark"
        )
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise ValueError(f"{path}: not readable as {encoding}: {error}") from error
        return data.decode("latin-1")
