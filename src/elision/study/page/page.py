"""A study as one HTML file: no network, figures inline, whole without its script."""

from collections.abc import Sequence
from dataclasses import replace

from elision.study.command import command_line
from elision.study.config import StudyConfig
from elision.study.outcome import StudyOutcome
from elision.study.page.answer import answer
from elision.study.page.overview import costs_of, overview, overview_note
from elision.study.page.sections import SECTIONS
from elision.study.page.sections.accuracy import accuracy
from elision.study.page.template import render

__all__ = ["study_page"]


def study_page(
    outcome: StudyOutcome,
    *,
    whole: StudyConfig | None = None,
    missing: Sequence[str] = (),
) -> str:
    """The whole report as an HTML document.

    Args:
        outcome: of the study, or of the part of it that is finished.
        whole: configuration of the whole study; None: the outcome's.
        missing: what an unfinished study does not have yet, a sentence each.
    """
    # A recipe that diverged has its accuracy to show, and nothing else.
    finished = replace(outcome, outcomes=[o for o in outcome.outcomes if o.finished])
    made = [accuracy(outcome), *(s(finished) for s in SECTIONS if s is not accuracy)]
    return render(
        "page.html.j2",
        config=outcome.config,
        workload=outcome.config.resolved_workload(),
        source=outcome.source,
        answer=answer(
            outcome.summary(),
            outcome.metric,
            outcome.config.recipes,
            costs_of(outcome),
        ),
        overview=overview(outcome),
        overview_note=overview_note(outcome),
        environment=outcome.environment | outcome.config.ran(),
        command=command_line(whole or outcome.config),
        missing=missing,
        sections=[section for section in made if section is not None],
    )
