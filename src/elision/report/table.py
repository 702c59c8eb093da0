"""Rows as text, HTML, Markdown and LaTeX. A row is a dictionary, column name to value."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from elision.common.printable import escaped, printable
from elision.report.style import Mark

__all__ = ["rows_as_html", "rows_as_latex", "rows_as_markdown", "rows_as_text"]


def rows_as_text(rows: list[dict[str, Any]], width: int | None = None) -> str:
    """Rows as aligned text columns for a terminal; see :func:`_text` for numbers.

    Args:
        rows: the values.
        width: characters of a line. In a table that is wider, headings that are wider than
            their values go over several lines.

    Example:
        >>> rows = [{"machine": "dense", "cycles": 1024, "gain, cycles on ant": "1x"}]
        >>> print(rows_as_text(rows))
        machine  cycles  gain, cycles on ant
        dense    1,024   1x
        >>> print(rows_as_text(rows, width=32))
                         gain,
                         cycles
        machine  cycles  on ant
        dense    1,024   1x
    """
    if not rows:
        return ""
    head = _columns(rows)
    cells = [[_text(row.get(name, "")) for name in head] for row in rows]
    lines = [head, *cells]
    columns = list(zip(*lines, strict=True))
    if width is not None and sum(2 + max(map(len, c)) for c in columns) - 2 > width:
        broken = [_broken(name, max(map(len, values))) for name, *values in columns]
        deep = max(map(len, broken))
        tops = zip(*([""] * (deep - len(b)) + b for b in broken), strict=True)
        lines = [*map(list, tops), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(n) for word, n in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _broken(heading: str, width: int) -> list[str]:
    """A heading in lines of a width, or of its longest part: a word, or up to a colon."""
    lines = [""]
    parts = re.findall(r"[^ :]+:?|:", heading)
    width = max([width, *map(len, parts)])
    for part in parts:
        apart = " " if lines[-1] and not lines[-1].endswith(":") else ""
        if len(lines[-1] + apart + part) > width:
            lines.append(part)
        else:
            lines[-1] += apart + part
    return lines


def rows_as_markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; cells that hold text stay as they are.

    Example:
        >>> print(rows_as_markdown([{"method": "set", "sparsity": "90 %"}]))
        | method | sparsity |
        | --- | --- |
        | set | 90 % |
    """
    if not rows:
        return ""
    head = _columns(rows)
    lines = [head, ["---"] * len(head)]
    lines += [[_text(row.get(name, "")) for name in head] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rows_as_latex(
    rows: list[dict[str, Any]], units: Mapping[str, str] | None = None
) -> str:
    r"""Rows as a LaTeX table in the rules of the package booktabs; text is escaped.

    The first column stands to the left, the others to the right.

    Args:
        rows: the values.
        units: of columns, which stand below their headings.

    Example:
        >>> print(rows_as_latex([{"method": "n_m", "gain": "-1.5 ± 0.2"}], {"gain": "%"}))
        \begin{tabular}{lr}
        \toprule
        method & gain \\
         & \% \\
        \midrule
        n\_m & $-$1.5 $\pm$ 0.2 \\
        \bottomrule
        \end{tabular}
    """
    if not rows:
        return ""
    head = _columns(rows)
    tops = [head, *([[units.get(name, "") for name in head]] if units else [])]
    cells = [[_text(row.get(name, "")) for name in head] for row in rows]
    first, rest = (
        [" & ".join(map(_latex, line)) + r" \\" for line in lines]
        for lines in (tops, cells)
    )
    columns = "l" + "r" * (len(head) - 1)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *first,
            r"\midrule",
            *rest,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _latex(cell: str) -> str:
    """A cell as LaTeX's text, with a minus sign before a negative number."""
    return re.sub(r"^-(?=\d)", "$-$", cell.translate(_LATEX))


#: Characters that LaTeX reads as commands, signs that its text fonts lack, and a bracket,
#: which would be an argument of the line's end before it.
_LATEX = str.maketrans(
    {
        **{character: rf"\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",
        "±": r"$\pm$",
    }
)


#: Rows from which on a table of a page is folded, and letters from which on a name in its
#: first column is broken, so that the numbers stay beside it.
LONG, _LONG_NAME = 20, 32
#: Signs of a name behind which it may be broken; none is in a reference to a character.
_BREAKS = re.compile(r"[,:+(]")


def rows_as_html(
    rows: list[dict[str, Any]],
    words: Sequence[str] = (),
    marks: Mapping[str, Mark] | None = None,
) -> str:
    """Rows as an HTML table for the report; numbers to the right, words to the left.

    A table of many rows is folded, its number of rows shown.

    Args:
        rows: the values; text is escaped.
        words: columns that hold words. The first column always does.
        marks: recipes of the first column whose colour in figures stands before them.

    Example:
        >>> print(rows_as_html([{"machine": "dense", "cycles": 1024}]))
        <table>
        <thead>
        <tr><th class="word" scope="col">machine</th><th scope="col">cycles</th></tr>
        </thead>
        <tbody>
        <tr><td class="word">dense</td><td>1,024</td></tr>
        </tbody>
        </table>
    """
    if not rows:
        return ""
    head = _columns(rows)

    def line(tag: str, values: Sequence[str], more: str = "") -> str:
        cells = []
        for i, (name, value) in enumerate(zip(head, values, strict=True)):
            word = ' class="word"' if i == 0 or name in words else ""
            chip = _chip((marks or {}).get(value)) if i == 0 and not more else ""
            text = escaped(value)
            if i == 0 and len(value) > _LONG_NAME:
                word = ' class="word long"'
                text = _BREAKS.sub(r"\g<0><wbr>", text)
            cells.append(f"<{tag}{word}{more}>{chip}{text}</{tag}>")
        return f"<tr>{''.join(cells)}</tr>"

    body = (line("td", [_text(row.get(name, "")) for name in head]) for row in rows)
    top = line("th", head, ' scope="col"')
    lines = ["<table>", "<thead>", top, "</thead>", "<tbody>", *body, "</tbody>"]
    table = "\n".join([*lines, "</table>"])
    if len(rows) < LONG:
        return table
    return f"<details><summary>{len(rows)} rows</summary>{table}</details>"


def _chip(mark: Mark | None) -> str:
    """A spot in the colour that a recipe has in figures; empty for other text."""
    if mark is None:
        return ""
    return f'<span class="chip" style="background:{mark.colour}"></span>'


def _text(value: Any) -> str:
    """A whole number with its thousands apart, any other number to four digits.

    A text is shown as a terminal can show it (:func:`elision.common.printable.printable`).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(str(value))
    if math.isnan(value):
        return "NaN"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))
