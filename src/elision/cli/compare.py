"""elision compare."""

from pathlib import Path
from typing import Literal

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

    Parameters
    ----------
    runs
        Run folders, or their summary.json.
    format
        Of the table: text, markdown, latex (with the package booktabs), or csv (plain
        numbers); default: text, and that of its suffix (.md, .tex, .txt, else csv) for
        the file.
    cost
        Cost of the figure, and that a page shows first: work (the default), seconds, bytes,
        cycles:MACHINE or energy:MACHINE.
    out
        File: a page (.html) with verdict, figures and table of each workload, the figure
        alone (.svg, .pdf, .png), or the table.
    """
    from elision.cli.flags import refuse_ignored
    from elision.common.files import to_csv, write_text
    from elision.report.table import rows_as_latex, rows_as_markdown, rows_as_text
    from elision.study.compare import people_rows
    from elision.study.comparison import contests

    suffix = "" if out is None or format is not None else out.suffix.lower()
    drawn = suffix in (".html", *_FIGURES)
    if not drawn:
        refuse_ignored(
            "only a page and a figure (--out FILE.html) have one", {"cost": cost}
        )
    found = contests(runs)
    rows = [row for contest in found for row in contest.rows.values()]
    shown = people_rows(rows)

    def table(form: str) -> str:
        if form == "csv":
            return to_csv([row.to_row() for row in rows])
        writers = {"markdown": rows_as_markdown, "latex": rows_as_latex}
        return writers.get(form, rows_as_text)(shown) + "\n"

    print(table(format or "text"), end="")
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if not drawn:
        write_text(out, table(format or _SUFFIXES.get(out.suffix, "csv")))
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
    if format is None:
        print(f"\n{what}: {out}")
