"""Interleave or skip: every machine on the zeros of a recipe."""

import numpy as np

from elision.accelerators.design.interleave_or_skip import SkipRow
from elision.common.columns import as_text
from elision.report.charts import cost_bars
from elision.report.style import SLOT_COLOURS
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome, machine_rows
from elision.study.page.sections.base import Section
from elision.study.page.sections.costs import energy_unit

__all__ = ["zeros"]

_NOTE = (
    "What a machine's multipliers did in all of their cycles: a useful product, a product "
    "with a zero for a factor, a redundant product of two non-zeros, or nothing. A "
    "systolic array multiplies zeros, and interleaving its gradients saves the same "
    "share whatever the values are; PEs that do not switch on a zero "
    "(<code>zero_gating</code>) save energy and no cycle; an outer-product machine skips "
    "zeros and pays with redundant products and idle multipliers. Energy is without the "
    "DRAM, which not every machine models."
)


def zeros(outcome: StudyOutcome) -> Section | None:
    """Uses of the multiplier slots, if a systolic array is among the machines."""
    has_array = any(
        "folds" in row.cost.details for o in outcome.outcomes for row in o.costs
    )
    if not has_array:
        return None
    rows = {o.spec: machine_rows(o) for o in outcome.outcomes}
    unit = energy_unit(outcome)
    cells = [
        line for recipe, found in rows.items() for line in _cells(recipe, found, unit)
    ]
    table = rows_as_html(cells, words=("machine", "least"))
    return Section("Interleave or skip", "simulated", _NOTE, (_figure(rows), table))


def _figure(rows: dict[str, list[SkipRow]]) -> str:
    """Multiplier slots of every machine, stacked by their use."""

    def slots(row: SkipRow) -> list[int]:
        wasted = row.zero_multiplies + row.redundant_multiplies
        return [
            row.multiplies - wasted,
            row.zero_multiplies,
            row.redundant_multiplies,
            row.idle_slots,
        ]

    found = np.array([[slots(row) for row in o] for o in rows.values()], float)
    parts = {name: found[:, :, index] for index, name in enumerate(SLOT_COLOURS)}
    machines = [row.machine for row in next(iter(rows.values()))]
    return cost_bars(
        machines, list(rows), parts, "multipliers x cycles, simulated", SLOT_COLOURS
    )


#: Columns of the table.
_SHOWN = (
    "machine",
    "cycles",
    "speed_up",
    "zero_multiplies",
    "redundant_multiplies",
    "useful_share",
)


def _cells(
    recipe: str, rows: list[SkipRow], energy_in: tuple[str, float]
) -> list[dict[str, str]]:
    unit, factor = energy_in
    fewest = min(row.cycles for row in rows)
    least = min(row.energy_on_chip_pj for row in rows)
    return [
        {"recipe": recipe}
        | as_text(row, _SHOWN)
        | {
            f"energy on chip, {unit}": f"{row.energy_on_chip_pj * factor:,.4g}",
            "least": " ".join(
                ["cycles"] * (row.cycles == fewest)
                + ["energy"] * (row.energy_on_chip_pj == least)
            ),
        }
        for row in rows
    ]
