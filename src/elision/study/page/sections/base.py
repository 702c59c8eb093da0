"""What a section of the report is."""

from dataclasses import dataclass

__all__ = ["Section"]


@dataclass(frozen=True)
class Section:
    """One heading of the report and what stands under it.

    Attributes:
        title: the heading, plain text.
        tag: where its figures come from: ``"measured here"``, ``"counted here"``,
            ``"recorded here"``, ``"simulated"`` or ``"published"``.
        note: what the figures mean and what they do not, as HTML.
        sheets: SVG figures and HTML tables, one a box.
    """

    title: str
    tag: str = ""
    note: str = ""
    sheets: tuple[str, ...] = ()
