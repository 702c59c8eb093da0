"""A paper: what was published, what the sources leave open, and this library's own run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any, ClassVar, NamedTuple

from elision.report.table import rows_as_text

__all__ = ["Figure", "Paper", "Progress", "Report", "Rows", "Table", "silent", "some"]

#: Rows of a table: column -> value.
Rows = list[dict[str, Any]]


class Table(NamedTuple):
    """Rows for people.

    Attributes:
        title: heading; empty where none is needed. Lines after its first are a note.
        rows: values as text.
        figure: an SVG element that shows the same on the page; empty without one.
        origin: of the values: ``"measured here"``, ``"simulated"``, ...; empty where the
            columns say it.

    Example:
        >>> Table("speed", [{"machine": "ant", "speed-up": "3.71x"}]).title
        'speed'
    """

    title: str
    rows: Rows
    figure: str = ""
    origin: str = ""


#: Called with (units of work done, units in all).
Progress = Callable[[int, int], None]

#: Called with one line of text for each result.
Report = Callable[[str], None]


def silent(*_: Any) -> None:
    """Progress and reports that go nowhere."""


@dataclass(frozen=True)
class Figure:
    """A published figure.

    Attributes:
        quantity: what was measured or simulated, on what.
        value: the figure as the source words it, with its unit.
        source: where it is stated.

    Example:
        >>> Figure("speed-up over SCNN", "3.71x", "abstract, ISCA 2022").value
        '3.71x'
    """

    quantity: str
    value: str
    source: str


class Paper(ABC):
    """A publication whose figures stand beside this library's own.

    Members are frozen dataclasses. Their fields are the parameters of the reproduction:
    each is a flag of ``elision reproduce KEY``, documented by the class's ``Attributes``.

    Attributes:
        key: name on the command line.
        title: authors, title, venue and year.
        published: the figures that are compared, each with its source.
        unstated: what the sources do not state and this project had to choose.

    Example:
        >>> class Halves(Paper):
        ...     key = "halves"
        ...     title = "A. Author, Halves, 2026"
        ...     published = (Figure("half of one", "0.5", "abstract"),)
        ...     def run(self, folder, progress=silent, report=silent):
        ...         return [Table("", [{"half of": 1, "ours": 0.5}])]
        >>> paper = Halves()
        >>> print(paper.text(paper.run(Path())))
        half of  ours
        1        0.5
    """

    key: ClassVar[str]
    title: ClassVar[str]
    published: ClassVar[tuple[Figure, ...]]
    unstated: ClassVar[str] = ""

    @abstractmethod
    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Compute everything and write the files of the reproduction.

        Args:
            folder: destination of the files; it is made if it is not there.
            progress: called after each unit of work.
            report: called with a line for each result, where there are few.

        Returns:
            The tables that people read, published figures beside our own.

        Raises:
            ValueError: a parameter has no meaning.
            OSError: the folder cannot be written to.
        """

    def text(self, tables: Sequence[Table]) -> str:
        """The tables of :meth:`run`, and what the sources leave open, for a terminal."""
        parts = [
            f"{table.title}\n\n{rows_as_text(table.rows)}".lstrip("\n")
            for table in tables
        ]
        if self.unstated:
            parts.append(fill(self.unstated, 88))
        return "\n\n".join(parts)


def some(*default: Any) -> Any:
    """A dataclass field of several values, of which a person may want none at all."""
    return field(default=default, metadata={"may_be_empty": True})
