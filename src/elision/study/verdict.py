"""Verdict of a study: which recipe wins at a cost, by how much, and how sure that is.

A pure function of the study's summary, and of the seconds of a step, which are no part of
it. A recipe is compared with the study's first one, the baseline. It may win if it loses
no more of the metric than the reader allows, or if a one-sided paired t test over the
seeds does not show that it loses more; the cheapest of those wins. Only recipes of the
Pareto front may: else one would win by the spread of its seeds over another that is both
cheaper and better.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elision.study.costed import CostKind
from elision.workloads import Metric

__all__ = ["Standing", "Step", "Verdict", "standings"]

#: Level of the one-sided test by which a recipe counts as worse.
LEVEL = 0.05


@dataclass(frozen=True)
class Standing:
    """What a recipe loses of the metric against the baseline.

    Attributes:
        recipe: its spec.
        score: mean of the metric over the seeds.
        score_error: standard error of that mean; None of one seed.
        loss: mean over the seeds of what the recipe is worse by, in the metric's unit;
            negative where it is better.
        loss_error: standard error of that mean; None of one seed.
        seeds: number of them that the recipe has in common with the baseline, over which
            the loss is a mean; 0 where there is none, and it is the difference of two means.

    Example:
        >>> swat = Standing("swat", 0.80, 0.01, 0.03, 0.02, seeds=3)
        >>> swat.sure_loss < 0  # three seeds do not show that it loses
        True
    """

    recipe: str
    score: float
    score_error: float | None
    loss: float
    loss_error: float | None
    seeds: int

    @property
    def sure_loss(self) -> float:
        """Loss that the seeds show: the lower bound of 95 %; of one seed, the loss."""
        if self.loss_error is None:
            return self.loss
        from scipy.stats import t

        return self.loss - float(t.ppf(1 - LEVEL, self.seeds - 1)) * self.loss_error


@dataclass(frozen=True)
class Step:
    """A winner, and the loss from which on it wins.

    Attributes:
        allowed: least loss to allow, in the metric's unit.
        standing: the winner's.
    """

    allowed: float
    standing: Standing


def standings(
    summary: Mapping[str, Any], metric: Metric, baseline: str
) -> list[Standing]:
    """Standings of the recipes that were trained to a score, in the summary's order.

    Scores of two recipes are paired by their seeds.

    Args:
        summary: as in ``summary.json``; a recipe may have ``"seeds"`` of its own.
        metric: of the task.
        baseline: recipe that the others are compared with.

    Returns:
        One a recipe; empty if the baseline diverged.
    """
    recipes = summary["recipes"]
    scores = {spec: _scores(found, metric) for spec, found in recipes.items()}
    base = scores[baseline]
    if not all(map(math.isfinite, base.values())):
        return []
    worse = -1 if metric.higher_is_better else 1
    found = []
    for spec, own in scores.items():
        if not all(map(math.isfinite, own.values())):
            continue
        mean = statistics.fmean(own.values())
        losses = [worse * (own[s] - base[s]) for s in own if s in base]
        apart = worse * (mean - statistics.fmean(base.values()))
        found.append(
            Standing(
                spec,
                mean,
                _error([*own.values()]),
                statistics.fmean(losses) if losses else apart,
                _error(losses),
                len(losses),
            )
        )
    return found


def _scores(found: Mapping[str, Any], metric: Metric) -> dict[int, float]:
    """The scores by seed, or by their place where the recipes have the same seeds."""
    scores = found.get(f"{metric.name}_by_seed", [found[metric.name]])
    seeds = found.get("seeds", range(len(scores)))
    values = (math.nan if score is None else float(score) for score in scores)
    return dict(zip(seeds, values, strict=True))


def _error(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Verdict:
    """Standings and costs of a study, and who wins.

    Attributes:
        metric: of the task.
        baseline: recipe that the others are compared with.
        standings: of the recipes that were trained to a score.
        costs: kinds of cost, the default first.

    Example:
        >>> summary = {
        ...     "recipes": {"dense": {"test_accuracy": 0.84}, "swat": {"test_accuracy": 0.81}}
        ... }
        >>> metric = Metric("test_accuracy", percent=True)
        >>> left = {"dense": 1, "swat": 0.12}
        >>> work = CostKind("work", "training work", "counted here", "", left)
        >>> verdict = Verdict(metric, "dense", standings(summary, metric, "dense"), [work])
        >>> [(round(s.allowed, 2), s.standing.recipe) for s in verdict.steps(work)]
        [(0.0, 'dense'), (0.03, 'swat')]
        >>> verdict.sentence(verdict.steps(work)[1])
        'swat: 3.0 points less, 88 % of the work left out.'
    """

    metric: Metric
    baseline: str
    standings: Sequence[Standing]
    costs: Sequence[CostKind]

    def winner(self, cost: CostKind, allowed: float = 0.0) -> Standing | None:
        """The cheapest recipe that is not shown to lose more than is allowed.

        Args:
            cost: kind of cost.
            allowed: loss of the metric, in its unit.

        Returns:
            The winner; of equally cheap ones the better; None without a standing.
        """
        front = self.front(cost)
        able = [
            s
            for s in self.standings
            if (s.recipe in front and s.sure_loss <= allowed)
            or s.recipe == self.baseline
        ]
        able = [s for s in able if s.recipe in cost.ratios]
        return min(able, key=lambda s: (cost.ratios[s.recipe], s.loss), default=None)

    def steps(self, cost: CostKind) -> list[Step]:
        """Winners by the loss that is allowed: from none on, one step a winner."""
        bounds = sorted({0.0, *(max(0.0, s.sure_loss) for s in self.standings)})
        found: list[Step] = []
        for allowed in bounds:
            wins = self.winner(cost, allowed)
            if wins is not None and (not found or wins != found[-1].standing):
                found.append(Step(allowed, wins))
        return found

    def front(self, cost: CostKind) -> list[str]:
        """Recipes of the Pareto front, cheapest first: none is both cheaper and better."""
        known = [s for s in self.standings if s.recipe in cost.ratios]
        front: list[str] = []
        least = math.inf
        for s in sorted(known, key=lambda s: (cost.ratios[s.recipe], s.loss)):
            if s.loss < least:
                front.append(s.recipe)
                least = s.loss
        return front

    def sentence(self, step: Step) -> str:
        """What a winner loses and brings, in one sentence."""
        return f"{step.standing.recipe}: {self.said(step)}."

    def said(self, step: Step) -> str:
        """What a winner loses and brings, and whether it wins by the seeds' spread."""
        own = step.standing
        spread = own.loss > step.allowed and own.loss_error is not None
        doubt = f" ({own.seeds} seeds do not show that it loses more than is allowed)"
        return self.brings(own) + doubt * (spread and own.recipe != self.baseline)

    def brings(self, standing: Standing) -> str:
        """What a recipe loses and brings: the metric, work, seconds, cycles."""
        told = [self.loss_text(standing)]
        groups: dict[str, list[CostKind]] = {}
        for cost in self.costs:
            if standing.recipe in cost.ratios and cost.in_sentence:
                groups.setdefault(cost.key.partition(":")[0], []).append(cost)
        for alike in groups.values():  # of the machines, the one that gains most
            best = min(alike, key=lambda cost: cost.ratios[standing.recipe])
            told.append(best.words(standing.recipe))
        return ", ".join(filter(None, told))

    def loss_text(self, standing: Standing) -> str:
        """The loss in words, with its standard error where there are several seeds."""
        metric = self.metric
        if standing.recipe == self.baseline:
            return f"{metric.text(standing.score, standing.score_error)} {metric.label}"
        if standing.loss == 0:
            return f"the same {metric.label}"
        scale, digits = (100, ".1f") if metric.percent else (1, ".4g")
        number = f"{abs(scale * standing.loss):{digits}}"
        if standing.loss_error is not None:
            number += f" ± {scale * standing.loss_error:{digits}}"
        fell = (standing.loss > 0) == metric.higher_is_better
        if metric.percent:
            return f"{number} points {'less' if fell else 'more'}"
        return f"{metric.label} {'lower' if fell else 'higher'} by {number}"

    def answer(self, cost: CostKind, allowed: float = 0.0) -> str:
        """The verdict: who wins, what it brings, and, where nobody gains, who is nearest."""
        wins = self.winner(cost, allowed)
        if wins is None:
            return (
                f"{self.baseline} diverged, so that there is nothing to compare with."
            )
        if wins.recipe != self.baseline:
            return self.sentence(Step(allowed, wins))
        if len(self.standings) == 1:
            only = f"{self.baseline}: {self.loss_text(wins)}"
            return f"{only}. No other recipe has a score to compare it with."
        own = f"{self.baseline}, {self.loss_text(wins)}, stays"
        cheaper = [s for s in self.steps(cost) if s.standing.recipe != self.baseline]
        if not cheaper:
            return f"{own}: no recipe is cheaper in {cost.label}."
        near = cheaper[0].standing
        return (
            f"{own}: no recipe that is cheaper in {cost.label} keeps it. "
            f"Nearest is {near.recipe}: {self.brings(near)}."
        )

    def sureness(self) -> str:
        """How sure the verdict is: what the seeds say."""
        others = [s for s in self.standings if s.recipe != self.baseline]
        counts = {s.seeds for s in others or self.standings}
        alone = [s.recipe for s in others if s.seeds == 0]
        seeds = max(counts, default=1)
        if seeds <= 1:
            said = f"One seed, which says nothing about the spread of the {self.metric.label}"
            said += ": another seed may change the order." if others else "."
        else:
            few = f"{min(counts)} to " if len(counts) > 1 else ""
            shared = f", those in common with {self.baseline}," if few else ""
            said = (
                f"Means of {few}{seeds} seeds{shared} ± their standard error. A recipe "
                "counts as worse where a one-sided paired t test over the seeds shows it at "
                f"{100 * LEVEL:g} %; the fewer the seeds, the larger a loss it overlooks."
            )
        if alone:
            said += (
                f" No seed in common with {self.baseline}, so that the loss is the "
                f"difference of two means and untested: {', '.join(alone)}."
            )
        return said
