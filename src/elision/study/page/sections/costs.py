"""Cycles and energy on every machine."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from elision.accelerators import Cost
from elision.accelerators.base import QUANTITIES
from elision.accelerators.simulate import total
from elision.accelerators.step import GRADIENT_PAIR
from elision.common.columns import as_text
from elision.common.units import common_unit
from elision.products import Product
from elision.report.recipe_dots import recipe_dots
from elision.report.style import marks_of
from elision.report.table import rows_as_html
from elision.study.costed import dense_array
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["costs", "energy_unit"]

#: Energies of a cost, and the headings of their columns.
_ENERGIES = {
    "energy_on_chip_pj": "energy on chip",
    "energy_dram_pj": "DRAM",
    "energy_pj": "energy in all",
}
#: Quantities of a cost in the table, after its cycles.
_SHOWN = ("multiplies", "redundant_multiplies", "utilisation")


def costs(outcome: StudyOutcome) -> Section | None:
    """Dots by product, over the first recipe on the dense array, and a table of totals."""
    machines = outcome.config.accelerators
    if not machines:
        return None
    record, samples = outcome.config.record, outcome.config.samples
    note = (
        "The recorded products on models of accelerators: "
        f"{record} recorded step{'s' if record > 1 else ''}, "
        f"{samples} image{'s' if samples > 1 else ''} each, all layers. "
        "The product of the gradient that ReSprop shares, computed once a batch, is left "
        "out. Left of the line is a gain. No figure here is a measured speed-up."
    )
    off_chip = _with_dram(outcome)
    figures = [
        _figure(outcome, "cycles", "cycles", machines),
        _figure(outcome, "energy_on_chip_pj", "energy on chip", machines),
    ]
    if off_chip:
        figures.append(_figure(outcome, "energy_dram_pj", "energy of DRAM", off_chip))
        note += " Energy on chip and that of the DRAM stand apart"
        others = [machine for machine in machines if machine not in off_chip]
        note += (
            ": not every machine models its DRAM, so that they compare on chip alone."
            if others
            else "."
        )
    table = rows_as_html(_rows(outcome), ("machine",), marks_of(outcome.config.recipes))
    return Section("Cycles and energy", "simulated", note, (*figures, table))


def _with_dram(outcome: StudyOutcome) -> list[str]:
    """Machines that model their DRAM."""
    costs = outcome.outcomes[0].costs
    found = {row.accelerator for row in costs if row.cost.energy_dram_pj is not None}
    return [machine for machine in outcome.config.accelerators if machine in found]


def _sums(o: RecipeOutcome) -> dict[str, Cost]:
    return {machine: cost["total"] for machine, cost in total(o.costs).items()}


def _shown_energies(outcome: StudyOutcome) -> list[str]:
    """Energies that the table shows; a total only where every machine has one."""
    off_chip = _with_dram(outcome)
    shown = ["energy_on_chip_pj", *["energy_dram_pj"] * bool(off_chip)]
    if len(off_chip) == len(outcome.config.accelerators):
        shown.append("energy_pj")
    return shown


def energy_unit(outcome: StudyOutcome) -> tuple[str, float]:
    """Unit of all energies of a step on the page, and the factor of picojoules."""
    energies = [
        getattr(cost, name) or 0.0
        for o in outcome.outcomes
        for cost in _sums(o).values()
        for name in _shown_energies(outcome)
    ]
    return common_unit(energies, "J", scale=1e-12)


def _rows(outcome: StudyOutcome) -> list[dict[str, Any]]:
    """A row a recipe and machine."""
    shown = _shown_energies(outcome)
    sums = {o.spec: _sums(o) for o in outcome.outcomes}
    named = _reference(outcome.config.accelerators)
    reference = sums[outcome.outcomes[0].spec][named]
    unit, factor = energy_unit(outcome)
    return [
        {"recipe": recipe, "machine": machine}
        | as_text(cost, ("cycles",), QUANTITIES)
        | {f"over {outcome.outcomes[0].spec} on {named}": _over(cost, reference)}
        | as_text(cost, _SHOWN, QUANTITIES)
        | {
            f"{_ENERGIES[name]}, {unit}": _energy(getattr(cost, name), factor)
            for name in shown
        }
        for recipe, of_recipe in sums.items()
        for machine, cost in of_recipe.items()
    ]


def _over(cost: Cost, reference: Cost) -> str:
    return f"{cost.cycles / reference.cycles:.3g}x" if reference.cycles else ""


def _energy(picojoules: float | None, factor: float) -> str:
    return "" if picojoules is None else f"{picojoules * factor:,.4g}"


def _reference(machines: Sequence[str]) -> str:
    """The dense array, or the first of the machines where there is none."""
    return dense_array(machines) or machines[0]


def _figure(
    outcome: StudyOutcome, field: str, what: str, machines: Sequence[str]
) -> str:
    """A dot a recipe and machine, over the first recipe on the reference, by product."""
    named = _reference(machines)
    first = outcome.outcomes[0]
    reference = {
        name: getattr(cost, field) for name, cost in total(first.costs)[named].items()
    }
    sums = {o.spec: total(o.costs) for o in outcome.outcomes}
    parts = ["total", *(p.value for p in Product)]
    if any(GRADIENT_PAIR in costs for s in sums.values() for costs in s.values()):
        parts.append(GRADIENT_PAIR)
    values = {
        recipe: np.array(
            [
                [_ratio(found[m], part, field, reference) for m in machines]
                for part in parts
            ]
        )
        for recipe, found in sums.items()
    }
    return recipe_dots(
        list(machines),
        ["all products", *parts[1:]],
        values,
        marks_of(outcome.config.recipes),
        unit=f"{what} over that of {first.spec} on {named}, simulated",
        scale="ratio",
    )


def _ratio(
    found: dict[str, Cost], part: str, field: str, reference: dict[str, float]
) -> float:
    """Cost of a product over the reference's; NaN where either does not compute it."""
    base = reference.get(part, 0)
    if part == GRADIENT_PAIR and not base:
        base = sum(
            reference.get(p.value, 0) for p in Product if p is not Product.FORWARD
        )
    own = getattr(found[part], field) if part in found else 0
    return own / base if own and base else np.nan
