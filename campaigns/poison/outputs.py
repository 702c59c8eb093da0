"""What is wrong with what was written: marks of a name that became more than a name."""

import csv
import gzip
import json
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["wrong_in_text", "wrong_under"]

#: Elements that pages and figures of this library have no use for.
_ACTIVE = ("script", "iframe", "object", "embed", "img", "form", "link", "base")

#: Characters that begin a formula in spreadsheets; a number may begin with a sign.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def wrong_under(folder: Path) -> list[str]:
    """What is wrong with the files below a folder, each with its file."""
    found = []
    for path in sorted(folder.rglob("*")):
        check = _CHECKS.get(path.suffix)
        if check is None or not path.is_file():
            continue
        try:
            found += [f"{path.name}: {wrong}" for wrong in check(path)]
        except (ValueError, csv.Error, ElementTree.ParseError) as error:
            found.append(f"{path.name}: cannot be read: {error}")
    return found


def wrong_in_text(text: str) -> list[str]:
    """What moves the cursor of a terminal, or colours it."""
    return sorted({repr(c) for c in text if not c.isprintable() and c not in "\n\t"})


#: What a report begins with, whatever it holds: an empty picture of its own, and its script.
_OWN = (
    '<link rel="icon" href="data:,">',
    f"<script>{(files('elision.study.page') / 'script.js').read_text('utf-8')}</script>",
)


def _page(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    for element in _OWN:
        text = text.replace(element, "", 1)
    reader = _Elements()
    reader.feed(text)
    reader.close()
    yield from reader.wrong


class _Elements(HTMLParser):
    """Elements and attributes that run something or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        if tag in _ACTIVE:
            self.wrong.append(f"<{tag}>")
        self.wrong += [f"attribute {name}" for name, _ in attrs if name[:2] == "on"]


def _figure(path: Path) -> Iterator[str]:
    ElementTree.fromstring(path.read_text("utf-8"))
    yield from _page(path)


def _table(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    for row in rows:
        # SCALE-Sim ends a line with a comma.
        if len(row) != len(rows[0]) and row[len(rows[0]) :] != [""]:
            yield f"{len(row)} cells in a row of {len(rows[0])}"
        for cell in row:
            if cell.startswith(_FORMULAS) and not _is_number(cell):
                yield f"a formula, {cell!r}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _objects(path: Path) -> Iterator[str]:
    json.loads(path.read_text("utf-8"))
    yield from ()


def _zipped_objects(path: Path) -> Iterator[str]:
    json.loads(gzip.decompress(path.read_bytes()))
    yield from ()


def _settings(path: Path) -> Iterator[str]:
    tomllib.loads(path.read_text("utf-8"))
    yield from ()


_CHECKS = {
    ".html": _page,
    ".svg": _figure,
    ".csv": _table,
    ".json": _objects,
    ".gz": _zipped_objects,
    ".toml": _settings,
}
