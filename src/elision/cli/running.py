"""Run a study with a progress bar, and print its table."""

from pathlib import Path
from typing import TYPE_CHECKING

from elision.cli.progress import Bar

if TYPE_CHECKING:
    from elision.study import StudyConfig

__all__ = ["run"]


def run(config: "StudyConfig", folder: Path) -> None:
    """Run a study, or the rest of an interrupted one, and print a row for every recipe."""
    from elision.report.table import rows_as_text
    from elision.study import study
    from elision.study.page.page import study_table

    with Bar() as bar:
        outcome = study(config, folder, bar.step)
    print(rows_as_text(study_table(outcome)))
