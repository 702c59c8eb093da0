"""The page of an export: stages, agreement, operations."""

from elision.export.stages import Exported
from elision.report.table import rows_as_html
from elision.study.page.sections.base import Section
from elision.study.page.subject import SubjectPage

__all__ = ["ExportPage"]


class ExportPage(SubjectPage):
    """The page of an export; see :class:`~elision.study.page.subject.SubjectPage`.

    Example:
        >>> "<h1>" in ExportPage("a network", "A network.").html()
        True
    """

    template = "export.html.j2"

    def add(self, found: Exported) -> None:
        """Tables of the stages, the answers and the operations."""
        self.sections.append(
            Section(
                "Stages",
                "measured here",
                f"Accuracy on {found.tested} test images. Bytes of the stored arrays, and of "
                "the files.",
                (rows_as_html(found.rows(), ("stage", "of")),),
            )
        )
        note = (
            "A step is the scale of the output: the difference of neighbouring codes."
            if found.graph
            else "Outputs of the file beside those of the network."
        )
        self.sections.append(
            Section(
                "Agreement",
                "measured here",
                note,
                (rows_as_html(list(found.agreements), ("answers of", "beside")),),
            )
        )
        if found.graph is not None:
            self.sections.append(
                Section(
                    "Operations",
                    "counted here",
                    "Each operation of the graph of integers with the shape, scale and zero "
                    "point of what it writes, and the bytes of its arrays.",
                    (rows_as_html(found.graph.rows(), ("operation", "kind", "shape")),),
                )
            )
