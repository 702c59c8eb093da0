"""The verdict on the page: an answer, a figure a cost, and who wins at what loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elision.report.style import marks_of
from elision.report.tradeoff_figure import Tradeoff, Tradeoffs, tradeoff_figure
from elision.study.costed import CostKind
from elision.study.verdict import Standing, Verdict, standings
from elision.workloads import Metric

__all__ = ["Answer", "Panel", "Rung", "answer", "figure_of", "verdict_of"]


@dataclass(frozen=True)
class Rung:
    """A winner, and the loss from which on it wins.

    Attributes:
        allowed: least loss that must be allowed, in the unit shown, rounded up.
        recipe: the winner.
        brings: what it loses and brings, in words.
    """

    allowed: float
    recipe: str
    brings: str


@dataclass(frozen=True)
class Panel:
    """One kind of cost.

    Attributes:
        label: of the cost.
        origin: of its figures.
        figure: the metric over the cost, SVG.
        answer: the verdict where nothing may be lost.
        rungs: winners by the loss that is allowed.
    """

    label: str
    origin: str
    figure: str
    answer: str
    rungs: list[Rung]


@dataclass(frozen=True)
class Answer:
    """What the page says first.

    Attributes:
        panels: one a kind of cost, the default first.
        label: of the metric.
        unit: of the loss, in words.
        sureness: how sure it is.
        same: kinds of cost that are the same for every recipe, and have no panel.
        place: of the verdict among those of the page, which its ids end with.
    """

    panels: list[Panel]
    label: str
    unit: str
    sureness: str
    same: str
    place: str = ""


def answer(
    summary: Mapping[str, Any],
    metric: Metric,
    recipes: Sequence[str],
    kinds: Sequence[CostKind],
    place: str = "",
) -> Answer:
    """The verdict of a study or of a comparison, ready for the page.

    Args:
        summary: as in ``summary.json``.
        metric: of the task.
        recipes: in their order; the first is the one that others are compared with.
        kinds: of cost.
        place: of the verdict on a page that has several.
    """
    verdict = verdict_of(summary, metric, recipes, kinds)
    known, found = verdict.costs, verdict.standings
    alike = [cost for cost in known[1:] if len(set(cost.ratios.values())) == 1]
    costs = [cost for cost in known if cost not in alike]
    panels = [
        Panel(
            cost.label,
            cost.origin,
            _drawn(verdict, cost, recipes),
            verdict.answer(cost),
            [
                Rung(
                    _shown(step.allowed, percent=metric.percent),
                    step.standing.recipe,
                    verdict.said(step),
                )
                for step in verdict.steps(cost)
            ],
        )
        for cost in costs
    ]
    unit = "percentage points" if metric.percent else metric.label
    same = "; ".join(
        cost.label + (" (not known of all)" if len(cost.ratios) < len(found) else "")
        for cost in alike
        if len(found) > 1
    )
    return Answer(panels, metric.label, unit, verdict.sureness(), same, place)


def verdict_of(
    summary: Mapping[str, Any],
    metric: Metric,
    recipes: Sequence[str],
    kinds: Sequence[CostKind],
) -> Verdict:
    """The verdict on what a summary holds, over known costs; see :func:`answer`."""
    known = [cost for cost in kinds if cost.ratios]
    return Verdict(metric, recipes[0], standings(summary, metric, recipes[0]), known)


def _shown(loss: float, *, percent: bool) -> float:
    """A loss in the unit shown, rounded up, so that what is shown is enough to allow."""
    scale, digits = (100, 1) if percent else (1, 3)
    return math.ceil(scale * loss * 10**digits - 1e-9) / 10**digits


def _drawn(verdict: Verdict, cost: CostKind, recipes: Sequence[str]) -> str:
    found = figure_of(verdict, cost, recipes)
    return "" if found is None else tradeoff_figure(found)


def figure_of(
    verdict: Verdict, cost: CostKind, recipes: Sequence[str]
) -> Tradeoffs | None:
    """The metric over a cost; None where no recipe has both.

    Args:
        verdict: whose standings are drawn.
        cost: kind of cost.
        recipes: in the order by which they are coloured.
    """
    metric = verdict.metric
    dots = {
        s.recipe: Tradeoff(
            cost.ratios[s.recipe], s.score, s.score_error, _said(verdict, cost, s)
        )
        for s in verdict.standings
        if cost.ratios.get(s.recipe)
    }
    if not dots:
        return None
    return Tradeoffs(
        dots,
        [recipe for recipe in verdict.front(cost) if recipe in dots],
        marks_of(recipes),
        title=f"{metric.label.capitalize()} over {cost.label}",
        unit=f"{cost.label}, over {cost.of}, {cost.origin}",
        percent=metric.percent,
    )


def _said(verdict: Verdict, cost: CostKind, s: Standing) -> str:
    score = verdict.metric.text(s.score, s.score_error)
    return f"{s.recipe}: {score}, {cost.ratios[s.recipe]:.3g}x"
