"""A section of the report: a heading, a note, figures and tables."""

from dataclasses import dataclass

__all__ = ["Section"]


@dataclass(frozen=True)
class Section:
    """One heading of the report with its note and sheets.

    Attributes:
        title: the heading, plain text.
        tag: origin of its figures: ``"measured here"``, ``"counted here"``,
            ``"recorded here"``, ``"simulated"`` or ``"published"``.
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
