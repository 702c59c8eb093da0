"""Share of redundant Cartesian products."""

from elision.products import Product
from elision.report.charts import grouped_bars
from elision.study.outcome import StudyOutcome, product_summary
from elision.study.page.sections.base import Section

__all__ = ["redundancy"]


def redundancy(outcome: StudyOutcome) -> Section:
    """RCPs of every recipe and product over all non-zero products."""
    figure = grouped_bars(
        [o.spec for o in outcome.outcomes],
        {
            p.value: [product_summary(o, p)["rcp_fraction"] for o in outcome.outcomes]
            for p in Product
        },
        title="Redundant Cartesian products, share of all non-zero products",
        percent=True,
    )
    note = (
        "An outer-product machine multiplies every non-zero of one plane with every "
        "non-zero of the other. Products that belong to no output are redundant. "
        "Published for sparse training: up to 90&nbsp;% of the computations "
        "(Lew et al., ISCA 2022, abstract)."
    )
    return Section("Redundant Cartesian products", "recorded here", note, (figure,))
