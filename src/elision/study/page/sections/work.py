"""Training work that is left to do."""

from elision.products import Product
from elision.report.charts import grouped_bars
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["work"]


def work(outcome: StudyOutcome) -> Section:
    """Multiply-accumulates of every recipe and product over dense ones."""
    figure = grouped_bars(
        [o.spec for o in outcome.outcomes],
        {p.value: [o.work[p.value] for o in outcome.outcomes] for p in Product},
        title="Multiply-accumulates done, share of dense",
        percent=True,
    )
    note = (
        "Multiply-accumulates that the recipe leaves to do, from realised densities, "
        "over those of the same steps done densely. Zeros that a ReLU makes for free do "
        "not count as work left out; they show in the densities below."
    )
    return Section("Training work", "counted here", note, (figure,))
