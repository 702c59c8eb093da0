"""Seconds of a training step as it ran."""

from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["seconds"]

_MASKED = (
    "Median wall-clock time of a training step. The recipes ran <b>masked</b>: zeros are "
    "multiplied like other values, so these times show the price of choosing what to "
    "leave out, never a gain."
)
_ENGINE = (
    "Median wall-clock time of a training step, its products computed by the engine "
    "<b>{}</b>, which leaves zeros out where it has a kernel for that."
)


def seconds(outcome: StudyOutcome) -> Section | None:
    """Milliseconds a step of every recipe that was trained by this process."""
    if not outcome.timing:
        return None
    rows = [
        {"recipe": spec, "ms a step": f"{1000 * value:.1f}"}
        for spec, value in outcome.timing.items()
    ]
    title, engine = "Seconds on this machine", outcome.config.engine
    note = _MASKED if engine == "torch" else _ENGINE.format(engine)
    return Section(title, "measured here", note, (rows_as_html(rows),))
