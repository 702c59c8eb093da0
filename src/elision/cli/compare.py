"""elision compare."""

from pathlib import Path
from typing import Literal

__all__ = ["compare"]

#: Formats by the suffix of the file that holds them.
_SUFFIXES = {".md": "markdown", ".tex": "latex", ".txt": "text"}


def compare(
    *runs: Path,
    format: Literal["text", "markdown", "latex", "csv"] | None = None,
    out: Path | None = None,
) -> None:
    """Put the recipes of several studies or trainings into one table.

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
    out
        File for the table.
    """
    from elision.common.files import to_csv, write_text
    from elision.report.table import rows_as_latex, rows_as_markdown, rows_as_text
    from elision.study.compare import compared_rows, people_rows

    rows = compared_rows(runs)
    shown = people_rows(rows)

    def table(form: str) -> str:
        if form == "csv":
            return to_csv([row.to_row() for row in rows])
        writers = {"markdown": rows_as_markdown, "latex": rows_as_latex}
        return writers.get(form, rows_as_text)(shown) + "\n"

    print(table(format or "text"), end="")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, table(format or _SUFFIXES.get(out.suffix, "csv")))
        if format is None:
            print(f"\ntable: {out}")
