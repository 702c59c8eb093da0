"""The recipes of a study in one table: for the page, and shorter for a terminal."""

from collections.abc import Sequence

from elision.common.specs import build
from elision.report.style import marks_of
from elision.report.table import rows_as_html
from elision.study.costed import CostKind, cost_kinds, dense_array
from elision.study.outcome import StudyOutcome, counted_seeds
from elision.study.page.answer import verdict_of
from elision.study.probes import PROBES
from elision.study.seconds import measured_steps

__all__ = [
    "costs_of",
    "gains",
    "overview",
    "overview_note",
    "study_table",
    "study_verdict",
]


def costs_of(outcome: StudyOutcome) -> list[CostKind]:
    """Every kind of cost that a study knows of its recipes."""
    return cost_kinds(
        outcome.summary(),
        outcome.config.recipes[0],
        measured_steps(outcome),
        outcome.config.accelerators,
    )


def study_table(outcome: StudyOutcome) -> list[dict[str, str]]:
    """The study in one short table, a row a recipe, values as text.

    A column a machine, and one a probe: what was asked for is there.
    """
    metric = outcome.metric
    costs = [c for c in costs_of(outcome) if c.key.startswith("cycles:")]
    rows = []
    for o in outcome.outcomes:
        row = {
            "recipe": o.spec,
            metric.label: metric.text(o.score, o.score_spread),
            "seeds": counted_seeds(len(o.scores)),
        }
        if o.finished:
            row["training MACs"] = f"{100 * o.training_macs_ratio:.1f} %"
        row |= gains(o.spec, costs)
        row |= {p: build("probe", p, PROBES).headline(f) for p, f in o.findings.items()}
        rows.append(row)
    return rows


def study_verdict(outcome: StudyOutcome) -> str | None:
    """The verdict of the page over the training work, as text; None of one recipe alone."""
    if len(outcome.outcomes) < 2:
        return None
    verdict = verdict_of(
        outcome.summary(), outcome.metric, outcome.config.recipes, costs_of(outcome)
    )
    if not verdict.costs:
        return None
    return f"{verdict.answer(verdict.costs[0])}\n{verdict.sureness()}"


def gains(recipe: str, costs: Sequence[CostKind]) -> dict[str, str]:
    """What a recipe gains in each kind of cost, a factor by the heading of a column."""
    return {
        f"gain, {cost.label}": f"{1 / cost.ratios[recipe]:.3g}x"
        for cost in costs
        if cost.ratios.get(recipe)
    }


def overview(outcome: StudyOutcome) -> str:
    """The table at the top of the page, as HTML."""
    metric, baseline = outcome.metric, outcome.outcomes[0]
    shown = ("seconds", "cycles", "bytes")  # the verdict has the energy, too
    costs = [c for c in costs_of(outcome) if c.key.partition(":")[0] in shown]
    rows = []
    for o in outcome.outcomes:
        gap = metric.difference_text(o.score, baseline.score, o.spread_over(baseline))
        score = metric.text(o.score, o.score_spread)
        row = {
            "recipe": o.spec,
            metric.label: f"{score} ({counted_seeds(len(o.scores))})",
            "against the first": "baseline" if o is baseline else gap,
        }
        if o.finished:
            row["work left out"] = f"{100 * (1 - o.training_macs_ratio):.0f} %"
        rows.append(row | gains(o.spec, costs))
    return rows_as_html(rows, marks=marks_of(outcome.config.recipes))


def overview_note(outcome: StudyOutcome) -> str:
    """What the columns of the table mean."""
    first, machines = outcome.config.recipes[0], outcome.config.accelerators
    said = ["A factor above one is a gain."]
    if len(outcome.config.all_seeds()) > 1:
        said.append("± is the standard deviation over seeds.")
    if machines:
        dense = dense_array(machines)
        where = "the dense array" if dense else "the same machine"
        said.append(
            f"Cycles and energy are simulated, and compared with {first} on {where}."
        )
    return " ".join(said)
