"""Cycles and energy on every machine."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from elision.accelerators.base import QUANTITIES
from elision.accelerators.simulate import total
from elision.accelerators.step import GRADIENT_PAIR
from elision.common.columns import as_text
from elision.products import Product
from elision.report.charts import cost_bars
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["costs"]


def costs(outcome: StudyOutcome) -> Section | None:
    """Bars by product and a table of totals."""
    if not outcome.config.accelerators:
        return None
    record, samples = outcome.config.record, outcome.config.samples
    note = (
        "The recorded products on models of accelerators: "
        f"{record} recorded step{'s' if record > 1 else ''}, "
        f"{samples} image{'s' if samples > 1 else ''} each, all layers. "
        "The product of the gradient that ReSprop shares, computed once a batch, is left "
        "out. No figure here is a measured speed-up."
    )
    machines = outcome.config.accelerators
    off_chip = _with_dram(outcome)
    figures = [
        _figure(outcome, "cycles", "cycles, simulated", machines),
        _figure(
            outcome, "energy_on_chip_pj", "energy on chip in pJ, simulated", machines
        ),
    ]
    if off_chip:
        figures.append(
            _figure(
                outcome, "energy_dram_pj", "energy of DRAM in pJ, simulated", off_chip
            )
        )
        note += " Energy on chip and that of the DRAM stand apart"
        others = [machine for machine in machines if machine not in off_chip]
        note += (
            ": not every machine models its DRAM, so that they compare on chip alone."
            if others
            else "."
        )
    table = rows_as_html(_rows(outcome, off_chip), words=("machine",))
    return Section("Cycles and energy", "simulated", note, (*figures, table))


def _with_dram(outcome: StudyOutcome) -> list[str]:
    """Machines that model their DRAM."""
    costs = outcome.outcomes[0].costs
    found = {row.accelerator for row in costs if row.cost.energy_dram_pj is not None}
    return [machine for machine in outcome.config.accelerators if machine in found]


def _rows(outcome: StudyOutcome, off_chip: Sequence[str]) -> list[dict[str, Any]]:
    """A row a recipe and machine; a total of energy only where every machine has one."""
    shown = [*_SHOWN, *["energy_dram_pj"] * bool(off_chip)]
    if len(off_chip) == len(outcome.config.accelerators):
        shown.append("energy_pj")
    rows = []
    for o in outcome.outcomes:
        sums = {machine: cost["total"] for machine, cost in total(o.costs).items()}
        first = next(iter(sums.values()))
        for machine, cost in sums.items():
            over = first.cycles / cost.cycles if cost.cycles else math.nan
            rows.append(
                {"recipe": o.spec, "machine": machine}
                | as_text(cost, ("cycles",), QUANTITIES)
                | {"over the first": f"{over:.2f}x"}
                | as_text(cost, shown, QUANTITIES)
            )
    return rows


#: Quantities of a cost in the table, after its cycles.
_SHOWN = ("multiplies", "redundant_multiplies", "utilisation", "energy_on_chip_pj")


def _figure(
    outcome: StudyOutcome, field: str, unit: str, machines: Sequence[str]
) -> str:
    """Bars of these machines, stacked by product."""
    sums = [total(o.costs) for o in outcome.outcomes]
    parts = [p.value for p in Product]
    if any(GRADIENT_PAIR in costs for s in sums for costs in s.values()):
        parts.append(GRADIENT_PAIR)
    values = {
        part: np.array(
            [
                [getattr(s[m][part], field) if part in s[m] else 0 for m in machines]
                for s in sums
            ],
            dtype=float,
        )
        for part in parts
    }
    return cost_bars(list(machines), [o.spec for o in outcome.outcomes], values, unit)
