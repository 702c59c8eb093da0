"""Accuracy and loss by epoch."""

from elision.report.charts import accuracy_curves
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["accuracy"]


def accuracy(outcome: StudyOutcome) -> Section:
    """Test accuracy and training loss of every recipe."""
    curves = {o.spec: [m.score for m in o.history] for o in outcome.outcomes}
    losses = {o.spec: [m.loss for m in o.history] for o in outcome.outcomes}
    return Section(
        "Accuracy", "measured here", sheets=(accuracy_curves(curves, losses),)
    )
