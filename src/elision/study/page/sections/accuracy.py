"""Accuracy, or another metric of a task, and loss by epoch."""

import numpy as np

from elision.common.printable import escaped
from elision.report.charts import accuracy_curves
from elision.report.style import marks_of
from elision.study.outcome import StudyOutcome, counted_seeds
from elision.study.page.sections.base import Section

__all__ = ["accuracy"]


def accuracy(outcome: StudyOutcome) -> Section:
    """The test's metric and the training loss of every recipe, mean over seeds."""
    curves, losses, spreads = {}, {}, {}
    for o in outcome.outcomes:
        runs = list(o.histories.values())
        scores = np.array([[m.score for m in history] for history in runs])
        curves[o.spec] = scores.mean(0).tolist()
        losses[o.spec] = np.mean([[m.loss for m in h] for h in runs], 0).tolist()
        if len(runs) > 1:
            spreads[o.spec] = scores.std(0, ddof=1).tolist()
    seeds = counted_seeds(len(outcome.config.all_seeds()))
    note = f"Mean and standard deviation of {seeds}." if spreads else f"Of {seeds}."
    lost = [
        f"{o.spec}, seed {seed}: {why}"
        for o in outcome.outcomes
        for seed, why in o.diverged.items()
    ]
    if lost:
        note += f" Diverged: {escaped('; '.join(lost))}."
    title = outcome.metric.label.capitalize()
    figure = accuracy_curves(
        curves,
        losses,
        spreads,
        marks_of(outcome.config.recipes),
        title=title,
        percent=outcome.metric.percent,
    )
    return Section(
        title.removeprefix("Test ").capitalize(), "measured here", note, (figure,)
    )
