"""Seconds of a training step as it ran."""

from elision.report.style import marks_of
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section
from elision.study.seconds import clock_and_seconds

__all__ = ["seconds"]

_MASKED = (
    "Median {} of a training step that was neither metered nor recorded, if there was one. "
    "The recipes ran <b>masked</b>: zeros are multiplied like other values, so these times "
    "show the price of choosing what to leave out, never a gain; <code>--probe speed</code> "
    "measures what leaving them out gains here."
)
_ENGINE = (
    "Median {} of a training step, its products computed by the engine <b>{}</b>, which "
    "leaves zeros out where it has a kernel for that."
)


def seconds(outcome: StudyOutcome) -> Section | None:
    """Milliseconds a step of every recipe that was trained by this process."""
    clock, found = clock_and_seconds(outcome)
    if not found:
        return None
    base = found.get(outcome.config.recipes[0])
    rows = [
        {"recipe": spec, "ms a step": f"{1000 * own:.1f}"}
        | {"over the first": f"{own / base:.2f}x" if base else ""}
        for spec, own in found.items()
    ]
    title, engine = "Seconds on this machine", outcome.config.engine
    note = _MASKED.format(clock) if engine == "torch" else _ENGINE.format(clock, engine)
    table = rows_as_html(rows, marks=marks_of(outcome.config.recipes))
    return Section(title, "measured here", note, (table,))
