"""Layers of a topology file, by the columns of its header."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from elision.common.cells import in_cell
from elision.common.checks import integer
from elision.common.printable import printable
from elision.products import Conv2dGeometry, Geometry, MatmulGeometry
from elision.workloads.shapes.scalesim.columns import (
    CONVOLUTION,
    DEPTHWISE,
    PRODUCT,
    Columns,
    by_count,
    by_title,
    field_of,
)
from elision.workloads.shapes.scalesim.lines import lines_of

__all__ = ["open_symbols", "read_topology"]

_SYMBOL = re.compile(r"[^\W\d]\w*")


def read_topology(
    path: str | Path, dims: Mapping[str, int] | None = None
) -> list[tuple[str, Geometry]]:
    """Read the layers of a SCALE-Sim topology file.

    A header says what the columns are, in any order; without one they are SCALE-Sim's. A
    batch and a second stride are read where there is a column for them, or, for the
    stride, one number more than columns. A line that holds a name alone heads a section,
    whose name is put before those of its layers.

    Args:
        path: the file; text in UTF-8, Latin-1, or UTF-16 or UTF-32 with a mark.
        dims: sizes of the symbols that a template has in place of numbers, by name.

    Warns:
        UserWarning: columns that are not read; *Sparsity* is one, since shapes have no
            zeros, and is named where it is below N:N.

    Raises:
        ValueError: the file has no header that is known, no layers, or a line is wrong
            (the message names file, line and column); a symbol has no size or a size no
            symbol.
        OSError: the file cannot be read.
    """
    reader = _Reader(str(path), dict(dims or {}))
    layers = reader.layers()
    if not layers:
        what = (
            "a header, but no layers" if reader.columns else "no header and no layers"
        )
        raise ValueError(f"{path}: {what}")
    for name in reader.sizes:
        if name not in reader.used:
            raise ValueError(f"{path}: no cell holds the symbol {name!r}")
    if reader.notes:
        warnings.warn(f"{path}: {'; '.join(reader.notes)}", stacklevel=2)
    return layers


def open_symbols(path: str | Path) -> list[str]:
    """Names of the symbols that a template has in place of numbers, in order.

    Raises:
        ValueError: the file has no header that is known, or a line has too few cells.
        OSError: it cannot be read.
    """
    return _Reader(str(path), {}).symbols()


class _Reader:
    """One pass over a file.

    Attributes:
        sizes: of symbols, by name.
        columns: of the lines; None before the first header or layer.
        used: symbols that were met.
        notes: what is to be said of the file.
    """

    def __init__(self, path: str, sizes: Mapping[str, int]) -> None:
        self.path = path
        self.sizes = {
            name: integer("read_topology", f"dims[{name!r}]", size)
            for name, size in sizes.items()
        }
        self.columns: Columns | None = None
        self.used: set[str] = set()
        self.notes: list[str] = []

    def symbols(self) -> list[str]:
        """Symbols of all layers."""
        texts = [
            text for _, _, values in self._lines() for text in _sizes(values).values()
        ]
        return list(dict.fromkeys(text for text in texts if _SYMBOL.fullmatch(text)))

    def layers(self) -> list[tuple[str, Geometry]]:
        """All layers."""
        found: list[tuple[str, Geometry]] = []
        sparse = 0
        for where, section, values in self._lines():
            sparse += _is_sparse(values.get("sparsity", ""), where)
            sizes = {
                field: self._integer(text, field, where)
                for field, text in _sizes(values).items()
            }
            try:
                geometry = _geometry(values["name"], sizes)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            found.append((section + in_cell(values["name"]), geometry))
        if sparse:
            self.notes.append(
                f"the Sparsity of {sparse} layer(s) is not read, since shapes have no zeros"
            )
        return found

    def _lines(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Place, section and texts by field of each layer."""
        section, empty = "", ""
        for number, cells in lines_of(self.path):
            where = f"{self.path}, line {number}"
            numbers = any(cell.isdecimal() for cell in cells[1:])
            if len(cells) == 1:
                if sum(word.isdecimal() for word in cells[0].split()) > 2:
                    raise ValueError(
                        f"{where}: one cell, {cells[0]!r}; cells are separated by "
                        "commas, semicolons or tabs"
                    )
                self._note_empty(empty)
                section, empty = f"{cells[0]}/", cells[0]
            elif numbers or not self._head(cells, where):
                columns = self.columns = self.columns or by_count(len(cells))
                empty = ""
                yield where, section, self._values(cells, columns, where)
        self._note_empty(empty)

    def _note_empty(self, section: str) -> None:
        if section:
            self.notes.append(f"no layers under {section!r}")

    def _head(self, cells: Sequence[str], where: str) -> bool:
        """Take a line without numbers as header; False: it is a layer of symbols."""
        columns = by_title(cells)
        if columns is None and self.columns is not None:
            return False
        if columns is None:
            raise ValueError(
                f"{where}: expected the columns {', '.join(CONVOLUTION)} or "
                f"{', '.join(PRODUCT)}, got {printable(', '.join(cells))}"
            )
        self.columns = columns
        if columns.unread:
            self.notes.append(f"columns not read: {', '.join(columns.unread)}")
        return True

    def _values(
        self, cells: Sequence[str], columns: Columns, where: str
    ) -> dict[str, str]:
        """Texts by field; raise ValueError unless the cells are as many as the columns."""
        pairs = zip(columns.fields, cells, strict=False)
        needed = {field_of(title) for title in columns.needed}
        values = {f: cell for f, cell in pairs if f and (cell or f in needed)}
        more = list(cells[len(columns.fields) :])
        if more and "sparsity" not in values and ":" in more[-1]:
            values["sparsity"] = more.pop()
        if more and "stride" in values and "stride width" not in values:
            values["stride width"] = more.pop(0)
        if more or not needed <= values.keys():
            names = [title for title in columns.titles if title]
            raise ValueError(
                f"{where}: expected {len(names)} columns ({', '.join(names)}), "
                f"got {len(cells)}"
            )
        return values

    def _integer(self, text: str, field: str, where: str) -> int:
        if text in self.sizes:
            self.used.add(text)
            return self.sizes[text]
        if text.isdecimal() and int(text) >= 1:
            return int(text)
        assert self.columns is not None
        title = self.columns.title(field)
        said = f"{where}: {title} must be an integer >= 1, got {text!r}"
        if _SYMBOL.fullmatch(text):
            symbols = _Reader(self.path, {}).symbols()
            names = [name for name in symbols if name not in self.sizes]
            flags = " ".join(f"{name}=SIZE" for name in names)
            said += f"; if the file is a template, give sizes: --dim {flags}"
        raise ValueError(said)


def _sizes(values: Mapping[str, str]) -> dict[str, str]:
    return {f: text for f, text in values.items() if f not in ("name", "sparsity")}


def _is_sparse(text: str, where: str) -> bool:
    """Whether N values of every M are kept, and N is less."""
    if not text:
        return False
    kept, colon, of = text.partition(":")
    if not (
        colon and kept.isdecimal() and of.isdecimal() and 1 <= int(kept) <= int(of)
    ):
        raise ValueError(f"{where}: Sparsity must be N:M, 1 <= N <= M, got {text!r}")
    return int(kept) < int(of)


def _geometry(name: str, sizes: Mapping[str, int]) -> Geometry:
    batch = sizes.get("batch", 1)
    if "rows" in sizes:
        return MatmulGeometry(batch * sizes["rows"], sizes["inner"], sizes["columns"])
    kernel = (sizes["kernel height"], sizes["kernel width"])
    stride = (sizes["stride"], sizes.get("stride width", sizes["stride"]))
    channels, filters = sizes["channels"], sizes["filters"]
    size = (sizes["height"], sizes["width"])
    groups = channels if DEPTHWISE in name else 1
    if channels == kernel[0] == stride[0] == 1 and kernel[1] == size[1]:
        return MatmulGeometry(batch * size[0], size[1], filters)
    return Conv2dGeometry(
        *(batch, channels, *size, filters * groups, kernel, stride), groups=groups
    )
