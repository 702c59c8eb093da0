"""The rows of a comparison as tables: short ones for readers, whole ones for files."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from elision.common.units import common_unit
from elision.products import Product
from elision.study.compare import Compared
from elision.study.comparison import Contest

__all__ = ["DEVIATION", "paper_rows", "plain_rows", "short_rows", "whole_rows"]

#: What ± means in these tables.
DEVIATION = (
    "± is the standard deviation over seeds, and of a difference that of the differences "
    "seed by seed."
)

#: Heading of the run folders.
_RUNS = "runs"

#: Headings of quantities, and of those of a machine.
_HEADINGS = {f"rcp_{p.value}": f"RCP {p.value}" for p in Product} | {
    "saved_bytes_logical": "bytes kept by plain autograd",
    "saved_bytes_stored": "bytes kept",
}
_OF_MACHINES = {
    "energy_on_chip_pj": "energy on chip",
    "energy_dram_pj": "energy of the DRAM",
}

#: Headings of a paper's table that are other ones, and units of values.
_PAPER = {"against the first": "difference"}
_UNITS = ("%", "points")


def short_rows(contest: Contest) -> list[dict[str, str]]:
    """What a paper's table has: score, difference, seeds, work left out; a row a recipe.

    Args:
        contest: recipes of one workload.
    """
    return [_read(contest, label) for label in contest.rows]


def paper_rows(contest: Contest) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The short rows without units, which makes narrow columns, and the unit of each.

    Args:
        contest: recipes of one workload.

    Returns:
        Rows, and unit by heading.
    """
    rows = [
        {_PAPER.get(name, name): value for name, value in row.items()}
        for row in short_rows(contest)
    ]
    units = {
        name: unit
        for name in list(rows[0])[1:]
        for unit in _UNITS
        if any(row[name].endswith(f" {unit}") for row in rows)
    }
    for name, unit in units.items():
        for row in rows:
            row[name] = row[name].removesuffix(f" {unit}")
    return rows, units


def _read(contest: Contest, label: str) -> dict[str, str]:
    base, row = contest.rows[contest.baseline], contest.rows[label]
    work = row.quantities.get("training_macs_ratio")
    return {
        "recipe": label,
        row.metric.label: row.metric.text(row.mean, row.spread),
        "against the first": "baseline" if row is base else row.difference_text(base),
        "seeds": str(len(row.scores)),
        "work left out": "" if work is None else f"{100 * (1 - work):.1f} %",
    }


def whole_rows(found: Sequence[Contest]) -> list[dict[str, Any]]:
    """All that is known, in units for readers, every energy in the same; one table."""
    everything = [
        pair for c in found for row in c.rows.values() for pair in _further(row)
    ]
    joules = common_unit(
        (q for k, q in everything if k.endswith("_pj")), "J", scale=1e-12
    )
    return _runs_last(
        ({"workload": contest.title} if len(found) > 1 else {})
        | _read(contest, label)
        | dict(_for_readers(k, q, joules) for k, q in _further(row))
        | {_RUNS: row.names}
        for contest in found
        for label, row in contest.rows.items()
    )


def plain_rows(found: Sequence[Contest]) -> list[dict[str, Any]]:
    """All that is known, as plain numbers for programs; the workloads in one table.

    As :func:`elision.study.compared` has it, and ``options`` by which recipes of one name
    differ.
    """
    rows = []
    for contest in found:
        for label, row in contest.rows.items():
            options = label.removeprefix(row.recipe).removeprefix(", ")
            head = {"workload": contest.title, "recipe": row.recipe, "options": options}
            values = {k: v for k, v in row.to_row().items() if k not in (*head, "run")}
            rows.append(head | values | {_RUNS: row.names})
    return _runs_last(rows)


def _further(row: Compared) -> Iterator[tuple[str, float]]:
    """Quantities that the short rows lack."""
    return ((k, q) for k, q in row.quantities.items() if k != "training_macs_ratio")


def _for_readers(
    quantity: str, value: float, joules: tuple[str, float]
) -> tuple[str, Any]:
    """Heading and value: shares in per cent, energies in the unit of all."""
    if quantity.startswith("rcp_"):
        return _HEADINGS[quantity], f"{100 * value:.1f} %"
    if quantity in _HEADINGS:
        return _HEADINGS[quantity], value
    machine, _, what = quantity.rpartition(" ")
    if what in _OF_MACHINES:
        unit, scale = joules
        return f"{machine}, {_OF_MACHINES[what]} in {unit}", value * scale
    return f"{machine}, {what}", value


def _runs_last(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with every column of any, the run folders last."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row if name != _RUNS)
    return [{name: row.get(name, "") for name in (*names, _RUNS)} for row in rows]
