"""Columns of tables: a name for files and programs; heading, format and unit for people.

A row class declares each of its columns once, on the field itself; its dictionaries, CSV
columns, text tables and pages take names and formats from there.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Column", "as_text", "column", "columns"]

_KEY = "column"


@dataclass(frozen=True)
class Column:
    """A quantity as people read it.

    Attributes:
        heading: of the column, with the unit where the cells do not carry it.
        form: Python's format specification of a cell, such as ``".2f"`` or ``","``.
        unit: text after the number, such as ``"x"`` or ``" %"``.
        scale: factor from the stored value to the one shown; 100 shows a share in percent.

    Example:
        >>> Column("multiplier use", ".1f", " %", scale=100).text(0.25)
        '25.0 %'
    """

    heading: str
    form: str = ""
    unit: str = ""
    scale: float = 1

    def text(self, value: Any) -> str:
        """The value as a cell; None is empty, a truth value yes or no."""
        if value is None or isinstance(value, bool):
            return {None: "", True: "yes", False: "no"}[value]
        shown = value if self.scale == 1 else self.scale * value
        return f"{shown:{self.form}}{self.unit}"


def column(
    heading: str, form: str = "", unit: str = "", scale: float = 1, **options: Any
) -> Any:
    """A dataclass field with its :class:`Column`.

    Args:
        heading: as in :class:`Column`.
        form: likewise.
        unit: likewise.
        scale: likewise.
        **options: of :func:`dataclasses.field`, such as ``default``.
    """
    declared = Column(heading, form, unit, scale)
    return dataclasses.field(metadata={_KEY: declared}, **options)


def columns(kind: type) -> dict[str, Column]:
    """Declared columns of a row class by the field's name, in the order of its fields.

    Example:
        >>> @dataclass(frozen=True)
        ... class Speed:
        ...     machine: str = column("machine")
        ...     ratio: float = column("speed-up", ".2f", "x")
        >>> [c.heading for c in columns(Speed).values()]
        ['machine', 'speed-up']
    """
    fields = dataclasses.fields(kind)
    return {f.name: f.metadata[_KEY] for f in fields if _KEY in f.metadata}


def as_text(
    row: Any,
    names: Iterable[str] = (),
    known: Mapping[str, Column] | None = None,
) -> dict[str, str]:
    """One row of a text table: heading -> cell.

    Args:
        row: the object whose attributes are shown.
        names: attributes in the order of the table; none: all columns.
        known: columns by name; None: those that the row's class declares.

    Example:
        >>> @dataclass(frozen=True)
        ... class Speed:
        ...     machine: str = column("machine")
        ...     ratio: float = column("speed-up", ".2f", "x")
        >>> as_text(Speed("ant", 3.712))
        {'machine': 'ant', 'speed-up': '3.71x'}
    """
    known = columns(type(row)) if known is None else known
    shown = names or known
    return {known[n].heading: known[n].text(getattr(row, n)) for n in shown}
