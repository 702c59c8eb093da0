"""Cycles and energy on every machine."""

import math
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
    if any("dram.read" in row.cost.accesses for row in outcome.outcomes[0].costs):
        note += (
            " The energy of systolic arrays includes their DRAM; the other machines do "
            "not count theirs."
        )
    return Section(
        "Cycles and energy",
        "simulated",
        note,
        (
            _figure(outcome, "cycles", "cycles, simulated"),
            _figure(outcome, "energy_pj", "energy in pJ, simulated"),
            rows_as_html(_rows(outcome), words=("machine",)),
        ),
    )


def _rows(outcome: StudyOutcome) -> list[dict[str, Any]]:
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
                | as_text(cost, _SHOWN, QUANTITIES)
            )
    return rows


#: Quantities of a cost in the table, after its cycles.
_SHOWN = ("multiplies", "redundant_multiplies", "utilisation", "energy_pj")


def _figure(outcome: StudyOutcome, field: str, unit: str) -> str:
    sums = [total(o.costs) for o in outcome.outcomes]
    machines = list(sums[0])
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
    return cost_bars(machines, [o.spec for o in outcome.outcomes], values, unit)
