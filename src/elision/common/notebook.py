"""Small tables for notebooks: what ``_repr_html_`` returns."""

from collections.abc import Iterable, Sequence

from elision.common.printable import escaped

__all__ = ["html_table"]


def html_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = ""
) -> str:
    """A table as HTML; every text is escaped.

    Args:
        header: of the columns.
        rows: the cells of each row, shown as text.
        caption: above the table; empty: none.

    Example:
        >>> html_table(["layer"], [["fc<1>"]])
        '<table><tr><th>layer</th></tr><tr><td>fc&lt;1&gt;</td></tr></table>'
    """
    above = f"<caption>{escaped(caption)}</caption>" if caption else ""
    lines = [_line("th", header), *(_line("td", row) for row in rows)]
    return f"<table>{above}{''.join(lines)}</table>"


def _line(tag: str, cells: Iterable[object]) -> str:
    inner = "".join(f"<{tag}>{escaped(str(cell))}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"
