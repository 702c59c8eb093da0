"""Who taught the recipes, and how near they came."""

from elision.common.printable import escaped
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["teacher"]

_OWN = "the average of its own weights"
_NOTE = (
    "Every recipe was trained with the distillation <b>{spec}</b> by {who}. The teacher's "
    "forward passes are neither in the MACs nor in the seconds of a step. A teacher's "
    "score is that of its own run, on its own test examples."
)


def teacher(outcome: StudyOutcome) -> Section | None:
    """The teacher's score beside those of the recipes; None: nobody taught."""
    if outcome.config.distill is None:
        return None
    found, metric = outcome.teacher, outcome.metric
    note = _NOTE.format(
        spec=escaped(outcome.config.distill),
        who=_OWN if found is None else escaped(found.text()),
    )
    if found is None:
        return Section("Teacher", "measured here", note)
    rows = [
        {
            "network": f"teacher: {found.name}",
            "recipe": found.recipe,
            "parameters": found.parameters,
            metric.label: metric.text(found.score),
            "against the teacher": "",
        }
    ]
    model = outcome.config.resolved_workload().model
    for o in outcome.outcomes:
        rows.append(
            {
                "network": f"student: {model}",
                "recipe": o.spec,
                metric.label: metric.text(o.score, o.score_spread),
                "against the teacher": metric.difference_text(o.score, found.score),
            }
        )
    table = rows_as_html(rows, words=("recipe",))
    return Section("Teacher", "measured here", note, (table,))
