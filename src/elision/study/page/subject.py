"""A page about one subject: sections in order, figures inline, one file."""

from dataclasses import dataclass, field
from typing import ClassVar

from elision.study.page.sections.base import Section
from elision.study.page.template import render

__all__ = ["SubjectPage"]


@dataclass
class SubjectPage:
    """The page of one subject, section by section; a subclass names its template.

    Attributes:
        subject: network and data, for the title.
        lead: one or two sentences on these.
        sections: in order.
        figures: name -> SVG, which are in the sections as well.

    Example:
        >>> class Noise(SubjectPage):
        ...     template = "sensitivity.html.j2"
        >>> "<h1>" in Noise("a network", "A network.").html()
        True
    """

    template: ClassVar[str]

    subject: str
    lead: str
    sections: list[Section] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def html(self) -> str:
        """The whole page: one file, no network, no script."""
        return render(
            self.template,
            subject=self.subject,
            lead=self.lead,
            sections=self.sections,
        )
