"""Share of redundant Cartesian products."""

import numpy as np

from elision.products import Product
from elision.report.recipe_dots import recipe_dots
from elision.report.style import marks_of
from elision.study.outcome import StudyOutcome, product_summary
from elision.study.page.sections.base import Section

__all__ = ["redundancy"]


def redundancy(outcome: StudyOutcome) -> Section:
    """RCPs of every recipe and product over all non-zero products."""
    figure = recipe_dots(
        [p.value for p in Product],
        ["Redundant Cartesian products"],
        {
            o.spec: np.array([[product_summary(o, p)["rcp_fraction"] for p in Product]])
            for o in outcome.outcomes
        },
        marks_of(outcome.config.recipes),
        unit="share of all non-zero products",
        scale="share",
    )
    note = (
        "An outer-product machine multiplies every non-zero of one plane with every "
        "non-zero of the other. Products that belong to no output are redundant. "
        "Published for sparse training: up to 90&nbsp;% of the computations "
        "(Lew et al., ISCA 2022, abstract)."
    )
    return Section("Redundant Cartesian products", "recorded here", note, (figure,))
