"""Seconds of a step, dense and with the zeros left out, beside simulated cycles."""

from typing import Any

from elision.accelerators.simulate import total
from elision.common.specs import parse
from elision.report.table import rows_as_html
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["speed"]

_NOTE = (
    "Median time of whole training steps of the trained models (CPU time with one "
    "thread, the wall clock with more), taken in turns in one process: the plain model "
    "(<b>dense</b>), the recipe with zeros multiplied like other values "
    "(<b>masked</b>), and the recipe with zeros left out where that was faster "
    '(<b>engine</b>, <code>engine="auto"</code>). ± is half the '
    "interquartile range of the rounds' ratios. The columns named <b>simulated</b> are "
    "models of machines that compute the recorded products, and say nothing of this one: "
    "cycles of the first recipe over those of each."
)


def speed(outcome: StudyOutcome) -> Section | None:
    """A row a recipe, and what the engine decided."""
    rows, decided = [], []
    first = outcome.outcomes[0]
    for o in outcome.outcomes:
        for probe, found in o.findings.items():
            if parse(probe).name != "speed":
                continue
            rows.append(_row(o, found) | _simulated(first, o))
            decided += [{"recipe": o.spec, "decided": d} for d in found["decided"]]
    if not rows:
        return None
    sheets = (rows_as_html(rows), rows_as_html(decided, words=("decided",)))
    return Section(
        "Dense against sparse on this machine",
        "measured here",
        _NOTE,
        tuple(sheet for sheet in sheets if sheet),
    )


def _row(o: RecipeOutcome, found: dict[str, Any]) -> dict[str, Any]:
    seconds = found["seconds"]
    ratio = seconds["dense"] / seconds["engine"]
    return {
        "recipe": o.spec,
        "batch": found["batch"],
        "threads": found["threads"],
        "clock": found["clock"],
        **{f"{way}, ms": f"{1e3 * s:.1f}" for way, s in seconds.items()},
        "dense / engine": f"{ratio:.2f} ± {found['dense_over_engine_spread']:.2f}",
    }


def _simulated(first: RecipeOutcome, o: RecipeOutcome) -> dict[str, Any]:
    """Cycles of the first recipe over this one's, on every machine."""
    base, own = total(first.costs), total(o.costs)
    return {
        f"simulated, {machine}": f"{base[machine]['total'].cycles / cycles:.2f}x"
        for machine in own
        if machine in base and (cycles := own[machine]["total"].cycles)
    }
