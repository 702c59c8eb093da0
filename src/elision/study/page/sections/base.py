"""A section of the report: a heading, a note, figures and tables."""

import re
from dataclasses import dataclass
from typing import Any

from elision.common.specs import parse
from elision.study.outcome import StudyOutcome

__all__ = ["Section", "findings_of"]


def findings_of(outcome: StudyOutcome, probe: str) -> dict[str, dict[str, Any]]:
    """What a probe found of every recipe, by the recipe's text, and the probe's with it.

    Args:
        outcome: of a study.
        probe: name of the probe, whatever its parameters.
    """
    return {
        f"{o.spec}, {spec}" if len(o.findings) > 1 else o.spec: finding
        for o in outcome.outcomes
        for spec, finding in o.findings.items()
        if parse(spec).name == probe
    }


@dataclass(frozen=True)
class Section:
    """One heading of the report with its note and sheets.

    Attributes:
        title: the heading, plain text.
        tag: origin of its figures: ``"measured here"``, ``"estimated here"``,
            ``"counted here"``, ``"recorded here"``, ``"simulated"`` or ``"published"``.
        note: meaning and limits of the figures, as HTML.
        sheets: SVG figures and HTML tables, one a box.

    Example:
        >>> Section("Accuracy", "measured here", sheets=("<svg/>",)).tag
        'measured here'
    """

    title: str
    tag: str = ""
    note: str = ""
    sheets: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """The heading's id: its words in lower case, joined by hyphens."""
        return "-".join(re.findall(r"\w+", self.title.lower()))
