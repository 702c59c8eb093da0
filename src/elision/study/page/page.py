"""A study as one HTML file: no network, no script, figures inline."""

from elision.products import Product
from elision.study.outcome import RecipeOutcome, StudyOutcome, product_summary
from elision.study.page.sections import SECTIONS
from elision.study.page.sections.ant_over_scnn import ratios
from elision.study.page.template import render

__all__ = ["study_page", "study_table"]


def study_table(outcome: StudyOutcome) -> list[dict[str, str]]:
    """The study in one short table, a row a recipe, values as text."""
    rows = []
    for o in outcome.outcomes:
        row = {
            "recipe": o.spec,
            "test accuracy": f"{100 * o.history[-1].test_accuracy:.1f} %",
            "training MACs": f"{100 * o.training_macs_ratio:.1f} %",
        }
        for product in Product:
            share = product_summary(o, product)["rcp_fraction"]
            row[f"RCP {product.value}"] = f"{100 * share:.1f} %"
        for label, ratio in ratios(o).items():
            row[label] = f"{ratio['total']:.2f}x"
        rows.append(row)
    return rows


def study_page(outcome: StudyOutcome) -> str:
    """The whole report as an HTML document."""
    made = (section(outcome) for section in SECTIONS)
    return render(
        "page.html.j2",
        config=outcome.config,
        workload=outcome.config.resolved_workload(),
        source=outcome.source,
        environment=outcome.environment,
        cards=[_card(o, outcome.outcomes[0]) for o in outcome.outcomes],
        sections=[section for section in made if section is not None],
    )


def _card(o: RecipeOutcome, baseline: RecipeOutcome) -> dict[str, str]:
    """The few numbers at the top of the page."""
    accuracy = o.history[-1].test_accuracy
    gap = 100 * (accuracy - baseline.history[-1].test_accuracy)
    found = list(ratios(o).values())
    return {
        "spec": o.spec,
        "accuracy": f"{100 * accuracy:.1f} %",
        "gap": "baseline" if o is baseline else f"{gap:+.1f} points",
        "left_out": f"{100 * (1 - o.training_macs_ratio):.0f} %",
        "ant": f"{found[0]['total']:.2f}x" if found else "",
    }
