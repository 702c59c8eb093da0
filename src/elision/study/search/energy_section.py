"""The energy of a search's trainings: a section of its page, and lines for a terminal."""

from pathlib import Path

from elision.common.printable import escaped
from elision.common.units import in_words
from elision.report.table import rows_as_html
from elision.study.energy import account_of_search, kept_grid
from elision.study.page.sections.base import Section

__all__ = ["energy_lines", "energy_section"]

_NOTE = (
    "Of the training steps and tests of every trial, all processes together, those of a run "
    "that was interrupted included; sensitivities and costs are not in it. By the machine's "
    "counters where there are any, else a range from processor seconds and published watts "
    "of a core and of memory; here: {method}; scope: {scope}. <b>From the wall</b> and CO2e: "
    "with {grid}."
)


def energy_section(folder: Path) -> Section | None:
    """The section of a search's page; None where no energy is known.

    Args:
        folder: the search's run folder.
    """
    found = account_of_search(folder)
    if found is None:
        return None
    grid = kept_grid(folder, None)
    row = {
        "energy, before PUE": in_words(*found.watt_hours, "Wh"),
        "from the wall, and CO2e": grid.amounts(found),
        "processor seconds": f"{found.cpu_seconds:.1f}",
    }
    return Section(
        "Energy of the search",
        "estimated here" if found.is_range else "measured here",
        _NOTE.format(
            method=escaped(", ".join(found.methods)),
            scope=escaped(found.scope),
            grid=escaped(str(grid)),
        ),
        (rows_as_html([row]),),
    )


def energy_lines(folder: Path) -> str:
    """The energy in words, with its method and the grid; empty where none is known."""
    found = account_of_search(folder)
    if found is None:
        return ""
    grid = kept_grid(folder, None)
    return f"energy of its trainings: {found}\n{grid.amounts(found)}, with {grid}"
