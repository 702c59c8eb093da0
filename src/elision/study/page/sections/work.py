"""Training work that is left to do."""

import numpy as np

from elision.products import Product
from elision.report.recipe_dots import recipe_dots
from elision.report.style import marks_of
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["work"]


def work(outcome: StudyOutcome) -> Section:
    """Multiply-accumulates of every recipe and product over dense ones."""
    figure = recipe_dots(
        [*(p.value for p in Product), "all three"],
        ["Multiply-accumulates done"],
        {
            o.spec: np.array(
                [[*(o.work[p.value] for p in Product), o.training_macs_ratio]]
            )
            for o in outcome.outcomes
        },
        marks_of(outcome.config.recipes),
        unit="share of dense",
        scale="share",
    )
    note = (
        "Multiply-accumulates that the recipe leaves to do, from realised densities, "
        "over those of the same steps done densely. Zeros that a ReLU makes for free do "
        "not count as work left out; they show in the densities below."
    )
    return Section("Training work", "counted here", note, (figure,))
