"""A study as one HTML file: no network, no script, figures inline."""

from dataclasses import replace

from elision.products import Product
from elision.study.outcome import (
    RecipeOutcome,
    StudyOutcome,
    counted_seeds,
    product_summary,
)
from elision.study.page.sections import SECTIONS
from elision.study.page.sections.accuracy import accuracy
from elision.study.page.sections.ant_over_scnn import ratios
from elision.study.page.template import render

__all__ = ["study_page", "study_table"]


def study_table(outcome: StudyOutcome) -> list[dict[str, str]]:
    """The study in one short table, a row a recipe, values as text."""
    rows, metric = [], outcome.metric
    for o in outcome.outcomes:
        row = {
            "recipe": o.spec,
            metric.label: metric.text(o.score, o.score_spread),
            "seeds": counted_seeds(len(o.scores)),
        }
        if o.finished:
            row["training MACs"] = f"{100 * o.training_macs_ratio:.1f} %"
        for product in Product if o.finished else ():
            share = product_summary(o, product)["rcp_fraction"]
            row[f"RCP {product.value}"] = f"{100 * share:.1f} %"
        for label, ratio in ratios(o).items():
            row[label] = f"{ratio['total']:.2f}x"
        rows.append(row)
    return rows


def study_page(outcome: StudyOutcome) -> str:
    """The whole report as an HTML document."""
    # A recipe that diverged has its accuracy to show, and nothing else.
    finished = replace(outcome, outcomes=[o for o in outcome.outcomes if o.finished])
    made = [accuracy(outcome), *(s(finished) for s in SECTIONS if s is not accuracy)]
    return render(
        "page.html.j2",
        config=outcome.config,
        workload=outcome.config.resolved_workload(),
        source=outcome.source,
        metric=outcome.metric,
        environment=outcome.environment | outcome.config.ran(),
        cards=[_card(o, outcome) for o in outcome.outcomes],
        sections=[section for section in made if section is not None],
    )


def _card(o: RecipeOutcome, outcome: StudyOutcome) -> dict[str, str]:
    """The few numbers at the top of the page."""
    metric, baseline = outcome.metric, outcome.outcomes[0]
    gap = metric.difference_text(o.score, baseline.score, o.spread_over(baseline))
    found = list(ratios(o).values())
    return {
        "spec": o.spec,
        "score": metric.text(o.score, o.score_spread),
        "seeds": counted_seeds(len(o.scores)),
        "gap": "baseline" if o is baseline else gap,
        "left_out": f"{100 * (1 - o.training_macs_ratio):.0f} %" if o.finished else "",
        "ant": f"{found[0]['total']:.2f}x" if found else "",
    }
