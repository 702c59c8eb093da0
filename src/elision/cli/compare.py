"""elision compare."""

from pathlib import Path

__all__ = ["compare"]


def compare(*runs: Path, out: Path | None = None) -> None:
    """Put the recipes of several studies or trainings into one table.

    Parameters
    ----------
    runs
        Run folders, or their summary.json.
    out
        CSV file for the table.
    """
    from elision.common.files import to_csv, write_text
    from elision.report.table import rows_as_text
    from elision.study import compared

    rows = compared(runs)
    print(rows_as_text(rows))
    if out is not None:
        write_text(out, to_csv(rows))
        print(f"\ntable: {out}")
