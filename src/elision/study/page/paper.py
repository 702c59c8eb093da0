"""A reproduction as one HTML file: the published figures, our own, and what is unstated."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from elision.common.printable import escaped
from elision.report.table import rows_as_html
from elision.study.page.sections.base import Section
from elision.study.page.template import render
from elision.study.papers.base import Paper, Table

__all__ = ["paper_page"]


def paper_page(paper: Paper, tables: Sequence[Table]) -> str:
    """The page of one reproduction.

    Args:
        paper: the paper with the parameters of the run.
        tables: of :meth:`Paper.run`.
    """
    published = [asdict(figure) for figure in paper.published]
    words = ("value", "source")
    sections = [
        Section("Published", "published", sheets=(rows_as_html(published, words),)),
        *(_section(table) for table in tables),
    ]
    if paper.unstated:
        sections.append(
            Section("Unstated by the sources", note=escaped(paper.unstated))
        )
    parameters = [
        {"parameter": field.name, "value": getattr(paper, field.name)}
        for field in fields(paper)  # pyright: ignore[reportArgumentType]
    ]
    return render(
        "paper.html.j2",
        paper=paper,
        sections=sections,
        parameters=rows_as_html(parameters, ("value",)),
    )


def _section(table: Table) -> Section:
    """A table of the paper; the lines of a title after its first become the note."""
    title, _, note = table.title.lstrip("# ").partition("\n")
    sheets = (table.figure, rows_as_html(table.rows, _words(table)))
    return Section(
        title or "Our own",
        table.origin,
        escaped(note.strip()),
        tuple(sheet for sheet in sheets if sheet),
    )


def _words(table: Table) -> list[str]:
    """Columns without any digit at the start of a cell: text, not numbers."""
    names = dict.fromkeys(name for row in table.rows for name in row)
    return [
        name
        for name in names
        if not any(str(row.get(name, ""))[:1].isdigit() for row in table.rows)
    ]
