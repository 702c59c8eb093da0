"""Rows of a sweep: one a layer and product on a machine, kept in a CSV or JSON file.

Rows are known by what they were counted from, the column ``content``: a digest of the
layers or the trace, the operands, every parameter of the machine, its energy table and
the version. Several sweeps may write to one file at the same time: each adds what is not
there yet while it holds the folder's lock, and a file is replaced whole or appended to in
a single write.
"""

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from elision.accelerators.base import QUANTITIES
from elision.accelerators.step import PRODUCT_NAMES
from elision.common.cells import cell, in_cell
from elision.common.columns import Column
from elision.common.extras import imported
from elision.common.files import append_text, replacing
from elision.common.locking import locked

__all__ = [
    "ALL",
    "COLUMNS",
    "SPARSITIES",
    "Row",
    "RowFile",
    "as_cells",
    "as_frame",
    "by_product",
    "parameter_columns",
    "read_rows",
]

#: Values of a row by column, as text; an empty one is unknown.
Row = dict[str, str]

#: Name of a machine's last row, the sum of its others, in ``layer`` and ``product``.
ALL = "all"

#: Share of zeros of each operand; all empty for recorded ones.
SPARSITIES = ("input_sparsity", "weight_sparsity", "grad_output_sparsity")

#: Columns of every file; ``parameter_*`` of the machines in it follow. ``sparsity`` is that
#: of all three operands where it is one. ``machine`` is the accelerator with its
#: parameters, ``multiplier_count`` all of its multipliers. ``product`` is one of the three
#: products, or both gradients on a machine that interleaves them. ``stall_cycles``,
#: ``energy_dram_pj`` and the total ``energy_pj`` are empty for a machine that does not
#: model its DRAM, ``area_mm2`` where the energy table has no areas. ``notes`` belong beside
#: the figures, a sentence each.
COLUMNS: tuple[str, ...] = (
    "network",
    "sparsity",
    *SPARSITIES,
    "seed",
    "first_input_grad",
    "accelerator",
    "machine",
    "multiplier_count",
    "layer",
    "product",
    "cycles",
    "stall_cycles",
    "dense_macs",
    "multiplies",
    "valid_multiplies",
    "redundant_multiplies",
    "multiplier_slots",
    "utilisation",
    "energy_on_chip_pj",
    "energy_dram_pj",
    "energy_pj",
    "area_mm2",
    "notes",
    "content",
)

#: Columns that hold text; all others hold numbers, but for parameters, which hold both.
_TEXT = (
    "network",
    "first_input_grad",
    "accelerator",
    "machine",
    "layer",
    "product",
    "notes",
    "content",
)

_PARAMETER = "parameter_"

#: Columns that add over layers.
_SUMMED = COLUMNS[COLUMNS.index("cycles") : COLUMNS.index("area_mm2")]


class RowFile:
    """The file of a sweep, which other sweeps may write to as well.

    Args:
        path: CSV file, or JSON if its name ends in ``.json``; it need not exist.

    Raises:
        ValueError: the file is not one of a sweep.
        OSError: it cannot be read.

    Example:
        >>> RowFile("no-such-folder/rows.csv").rows
        []
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise ValueError(f"{path}: is a folder; name a file for the rows")
        self.rows: list[Row] = []
        self._state: tuple[int, int, int] | None = None
        self._torn = False
        self._refresh()

    def contents(self) -> set[str]:
        """What the rows in the file were counted from."""
        return {row["content"] for row in self.rows}

    def remove(self, contents: Collection[str]) -> None:
        """Take out the rows that were counted from one of ``contents``."""
        if not contents:
            return
        with self._held():
            kept = [row for row in self.rows if row["content"] not in contents]
            self._write(kept)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows, except those whose content is there by now.

        Raises:
            OSError: the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._held():
            known = self.contents()
            new = [row for row in rows if row["content"] not in known]
            columns = _columns(self.rows)
            fits = self.path.suffix != ".json" and bool(self.rows) and not self._torn
            if fits and all(row.keys() <= columns.keys() for row in new):
                self._append(new, list(columns))
            elif new or self._torn:
                self._write([*self.rows, *new])

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the lock of the file's folder, with the rows as they are in the file."""
        with locked(self.path.parent):
            self._refresh()
            yield

    def _refresh(self) -> None:
        """Read the file again if another process changed it."""
        state = self._found()
        if state != self._state:
            read = read_rows(self.path) if state and state[1] else []
            # The sum is a machine's last row: without it a writer was killed.
            whole = {row["content"] for row in read if row["product"] == ALL}
            unique = {(r["content"], r["layer"], r["product"]): r for r in read}
            self.rows = [row for row in unique.values() if row["content"] in whole]
            self._torn = len(self.rows) < len(read) or not _ends_a_line(self.path)
            self._state = state

    def _found(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _append(self, rows: list[Row], columns: list[str]) -> None:
        text = io.StringIO()
        csv.DictWriter(text, columns).writerows(map(_cells, rows))
        append_text(self.path, text.getvalue())
        self.rows += rows
        self._state = self._found()

    def _write(self, rows: list[Row]) -> None:
        text = _json(rows) if self.path.suffix == ".json" else _csv(rows)
        with replacing(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
        self.rows, self._torn = rows, False
        self._state = self._found()


def _columns(rows: Iterable[Row]) -> dict[str, None]:
    """The columns of every file, then the parameters of these rows' machines."""
    return dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])


def _ends_a_line(path: Path) -> bool:
    return path.read_bytes()[-1:] in (b"", b"\n") if path.exists() else True


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_columns(rows)))
    writer.writeheader()
    writer.writerows(map(_cells, rows))
    return text.getvalue()


def _cells(row: Row) -> Row:
    """A row whose names are no formulas."""
    return {k: cell(v) if k in _TEXT else v for k, v in row.items()}


def _names(row: Row) -> Row:
    """A row with the names that were put into cells."""
    return {k: in_cell(v) if k in _TEXT else v for k, v in row.items()}


def _json(rows: list[Row]) -> str:
    """A list of objects, a row each; numbers are numbers, unknown values null."""

    def value(name: str, text: str) -> Any:
        return text if name in _TEXT else _parsed(text)

    objects = [{name: value(name, text) for name, text in r.items()} for r in rows]
    return json.dumps(objects, indent=1, allow_nan=False) + "\n"


def _parsed(text: str) -> Any:
    """The number in a cell, the text if it is none, or None for an empty one."""
    for number in (int, float):
        with suppress(ValueError, OverflowError):
            value = number(text)
            return value if math.isfinite(value) else text
    return text or None


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a sweep's file, as text; a torn last line is left out.

    Args:
        path: CSV file, or JSON if its name ends in ``.json``.

    Raises:
        ValueError: the file is something else.
    """
    path = Path(path)
    text = path.read_bytes().decode("utf-8", errors="replace")
    if path.suffix == ".json":
        return _read_json(path, text)
    complete = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(complete.splitlines())
    try:
        _check_columns(path, reader.fieldnames or ())
        whole = [row for row in reader if None not in (*row, *row.values())]
    except csv.Error as error:
        raise ValueError(f"{path}: not a sweep's file ({error})") from error
    return _checked(path, [_names(row) for row in whole])


def _read_json(path: Path, text: str) -> list[Row]:
    try:
        objects = json.loads(text)
    except (RecursionError, ValueError):
        objects = None
    if not isinstance(objects, list) or not all(isinstance(o, dict) for o in objects):
        raise ValueError(f"{path}: not a sweep's file, which is a list of rows")
    for row in objects:
        _check_columns(path, row)
    rows = [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in objects
    ]
    return _checked(path, rows)


def _checked(path: Path, rows: list[Row]) -> list[Row]:
    """The rows, each with numbers in the columns that are added up."""
    for row in rows:
        for name in _SUMMED:
            if isinstance(_parsed(row[name]), str):
                raise ValueError(
                    f"{path}: not a sweep's file: {name} is {row[name]!r}, which is no "
                    "number"
                )
    return rows


def _check_columns(path: Path, names: Iterable[str]) -> None:
    found = list(names)
    more = found[len(COLUMNS) :]
    if tuple(found[: len(COLUMNS)]) != COLUMNS or not all(
        name.startswith(_PARAMETER) for name in more
    ):
        raise ValueError(
            f"{path}: not a sweep's file, or one of another version: its columns are not "
            f"{', '.join(COLUMNS)}; choose another file"
        )


def by_product(rows: Iterable[Row]) -> list[Row]:
    """The rows of one machine summed over its layers: a row a product, then all.

    Args:
        rows: of one machine on one network.
    """
    found = list(rows)
    sums = []
    for product in (*PRODUCT_NAMES, ALL):
        same = [row for row in found if row["product"] == product]
        if same:
            sums.append(same[0] | {name: _sum(same, name) for name in _SUMMED})
            slots = int(sums[-1]["multiplier_slots"])
            issued = int(sums[-1]["multiplies"])
            sums[-1]["utilisation"] = str(issued / slots if slots else 0.0)
    return sums


def _sum(rows: list[Row], name: str) -> str:
    values = [_parsed(row[name]) for row in rows]
    return "" if None in values else str(sum(values))


def as_cells(row: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Quantities of a row of :func:`read_rows`, as people read them.

    Args:
        row: values as text.
        names: quantities of a cost that are columns of the file.

    Example:
        >>> as_cells({"cycles": "12345", "stall_cycles": ""}, ("cycles", "stall_cycles"))
        {'cycles': '12,345', 'stalls': ''}
    """
    return {_READ[n].heading: _READ[n].text(_parsed(row[n])) for n in names}


#: Quantities of a sweep for people; single layers need the decimal of their energy.
_READ: Mapping[str, Column] = {
    **QUANTITIES,
    "multiplier_count": Column("multipliers", ","),
    "energy_on_chip_pj": Column("energy on chip, nJ", ",.1f", scale=1e-3),
    "energy_dram_pj": Column("DRAM, nJ", ",.1f", scale=1e-3),
    "energy_pj": Column("energy in all, nJ", ",.1f", scale=1e-3),
}


def as_frame(path: str | Path) -> Any:
    """The rows as a pandas ``DataFrame``; needs pandas, which is not a dependency.

    Raises:
        ModuleNotFoundError: pandas is not installed; the message says how to.
        ValueError: the file is not a sweep's.
    """
    pandas = imported("pandas", "pandas", "a sweep as a data frame")
    frame = pandas.DataFrame(read_rows(path))
    for column in frame.columns:
        if column not in _TEXT:
            with suppress(ValueError):  # of a parameter whose values are words
                frame[column] = pandas.to_numeric(frame[column])
    return frame


def parameter_columns(parameters: Sequence[tuple[str, Any]]) -> Row:
    """Columns of a machine's parameters: ``parameter_window`` and so on.

    Example:
        >>> parameter_columns((("window", 8), ("grid", (2, 4))))
        {'parameter_window': '8', 'parameter_grid': '2x4'}
    """
    return {
        f"{_PARAMETER}{name}": "x".join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
        for name, value in parameters
    }
