"""Energy of the trainings, over which accuracy is drawn, and CO2e."""

from collections.abc import Collection
from typing import Any

from elision.common.printable import escaped
from elision.common.units import common_unit
from elision.energy import Energy
from elision.report.energy_figure import energy_curves
from elision.report.style import marks_of
from elision.report.table import rows_as_html
from elision.study.energy import energy_curve, energy_of, step_seconds
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["energy"]

_NOTE = (
    "Of the training steps and tests of every epoch, over all processes that worked at the "
    "run, metering and recording included; simulating and probing are not in it. At equal "
    "power the energies of two recipes are to each other as their <b>processor "
    "seconds</b>, which are measured: compare those first, of a step that was neither "
    "metered nor recorded. <b>Energy</b>: by the machine's counters where there are any, "
    "else a range from processor seconds and published watts of a core and of memory. "
    "<b>From the wall</b> and CO2e: with {grid}."
)
_MASKED = (
    " The recipes ran <b>masked</b>: zeros were multiplied like other values, so no recipe "
    "can gain by them here."
)


def energy(outcome: StudyOutcome) -> Section | None:
    """A row a recipe, and the curves of those whose every epoch is known."""
    spent = {o.spec: _of_first_seed(o) for o in outcome.outcomes}
    known = {spec: found for spec, found in spent.items() if found is not None}
    units = _units(known.values(), outcome)
    rows = [
        _row(o, known[o.spec], units, outcome)
        for o in outcome.outcomes
        if o.spec in known
    ]
    total = energy_of(outcome.outcomes)
    if total is None:
        return None
    note = _NOTE.format(grid=escaped(str(outcome.grid)))
    if outcome.config.engine == "torch":
        note += _MASKED
    sheets = [_figure(outcome, total), rows_as_html(rows)]
    seeds = outcome.config.all_seeds()
    of_all = f"All {len(seeds)} seeds" if len(seeds) > 1 else "All recipes"
    sheets.append(
        f'<p class="note">{of_all} together: {escaped(str(total))}; '
        f"{escaped(outcome.grid.amounts(total))}.</p>"
    )
    return Section(
        "Energy of the training",
        "estimated here" if total.is_range else "measured here",
        note,
        tuple(sheet for sheet in sheets if sheet),
    )


def _of_first_seed(o: RecipeOutcome) -> Energy | None:
    """Energy of a recipe's training at its first seed."""
    spent = o.spent.get(next(iter(o.histories)), {})
    return Energy.total(epoch.energy for epoch in spent.values())


#: Units of energy and of CO2e, one for all rows, and the factors that bring values into them.
_Units = tuple[tuple[str, float], tuple[str, float]]


def _units(spent: Collection[Energy], outcome: StudyOutcome) -> _Units:
    return (
        common_unit((found.watt_hours[1] for found in spent), "Wh"),
        common_unit((outcome.grid.grams(found)[1] for found in spent), "g"),
    )


def _row(
    o: RecipeOutcome, found: Energy, units: _Units, outcome: StudyOutcome
) -> dict[str, Any]:
    """One recipe at the first seed."""
    seed, first = next(iter(o.histories)), outcome.outcomes[0]
    spent = o.spent[seed]
    own, base = step_seconds(spent), step_seconds(first.spent.get(seed, {}))
    epochs = len(o.histories[seed])
    known = "" if len(spent) == epochs else f" ({len(spent)} of {epochs} epochs known)"
    (watt_hours, to_watt_hours), (grams, to_grams) = units
    return {
        "recipe": o.spec,
        "processor ms a step": f"{1e3 * own:.1f}" if own is not None else "",
        "over the first": f"{own / base:.2f}x" if own and base else "",
        "processor s of the run": f"{found.cpu_seconds:.1f}{known}",
        f"{watt_hours}, before PUE": _range(found.watt_hours, to_watt_hours),
        f"CO2e, {grams}": _range(outcome.grid.grams(found), to_grams),
        "by": "estimate" if found.is_range else "counter",
        "scope": found.scope,
    }


def _range(ends: tuple[float, float], scale: float) -> str:
    texts = (f"{end * scale:.3g}" for end in ends)
    return " to ".join(dict.fromkeys(texts))


def _figure(outcome: StudyOutcome, total: Energy) -> str:
    """Curves of the recipes whose every epoch is known; empty without any."""
    found = {o.spec: energy_curve(o) for o in outcome.outcomes}
    curves = {spec: curve for spec, curve in found.items() if curve is not None}
    if not curves:
        return ""
    return energy_curves(
        {spec: curve.scores for spec, curve in curves.items()},
        {spec: curve.cpu_seconds for spec, curve in curves.items()},
        {spec: curve.watt_hours for spec, curve in curves.items()},
        marks_of(outcome.config.recipes),
        title=outcome.metric.label.capitalize(),
        percent=outcome.metric.percent,
        estimated=total.is_range,
    )
