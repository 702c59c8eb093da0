"""elision compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elision.study.comparison import Contest

__all__ = ["compare"]

#: Formats by the suffix of the file that holds them.
_SUFFIXES = {".md": "markdown", ".tex": "latex", ".txt": "text"}

#: Suffixes of files with a figure alone.
_FIGURES = (".svg", ".pdf", ".png")


def compare(
    *runs: Path,
    format: Literal["text", "markdown", "latex", "csv"] | None = None,
    cost: str | None = None,
    out: Path | None = None,
) -> None:
    """Put the recipes of several studies or trainings into one table, or on one page.

    Runs of one configuration at other seeds are one row, the mean over their seeds with
    its standard deviation. Each recipe is compared with the first one of its workload.
    What is not compared is named on standard error.

    Parameters
    ----------
    runs
        Run folders, or their summary.json.
    format
        Of the table: text and latex (with the package booktabs) are short, a table a
        workload; markdown and csv (plain numbers) have every quantity. Default: text, and
        that of its suffix (.md, .tex, .txt, else csv) for the file.
    cost
        Cost of the figure, and that a page shows first: work (the default), seconds, bytes,
        cycles:MACHINE or energy:MACHINE.
    out
        File: a page (.html) with verdict, figures and table of each workload, the figure
        alone (.svg, .pdf, .png), or the table.
    """
    import sys

    from elision.cli.flags import refuse_ignored
    from elision.common.files import write_text
    from elision.common.printable import printable
    from elision.study.comparison import contests

    suffix = "" if out is None or format is not None else out.suffix.lower()
    drawn = suffix in (".html", *_FIGURES)
    if not drawn:
        refuse_ignored(
            "only a page and a figure (--out FILE.html) have one", {"cost": cost}
        )
    found = contests(runs)
    print(_table(found, "text" if out else format or "text"), end="")
    for contest in found:
        for note in contest.notes:
            print(printable(f"elision: {contest.title}: {note}"), file=sys.stderr)
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if not drawn:
        write_text(out, _table(found, format or _SUFFIXES.get(suffix, "csv")))
        what = "table"
    elif suffix == ".html":
        from elision.study.page.comparison import comparison_page

        write_text(out, comparison_page(found, cost or "work"))
        what = "page"
    else:
        from elision.report.tradeoff_figure import save_tradeoffs
        from elision.study.page.comparison import comparison_figures

        save_tradeoffs(comparison_figures(found, cost or "work"), out)
        what = "figure"
    print(f"\n{what}: {out}")


def _table(found: "Sequence[Contest]", form: str) -> str:
    """The recipes of all workloads in a format, a line's end last."""
    from elision.common.files import to_csv
    from elision.common.printable import printable
    from elision.report.table import rows_as_latex, rows_as_markdown, rows_as_text
    from elision.study.compared_table import (
        DEVIATION,
        paper_rows,
        plain_rows,
        short_rows,
        whole_rows,
    )

    if form == "csv":
        return to_csv(plain_rows(found))
    if form == "markdown":
        return rows_as_markdown(whole_rows(found)) + "\n"
    said = []
    for contest in found:
        title = contest.title if len(found) > 1 else ""
        if form == "latex":
            head = [title, DEVIATION, *contest.notes]
            comments = [f"% {printable(line)}" for line in head if line]
            said.append("\n".join([*comments, rows_as_latex(*paper_rows(contest))]))
        else:
            text = rows_as_text(short_rows(contest))
            said.append("\n\n".join(filter(None, [printable(title), text])))
    return "\n\n".join(said) + "\n"
