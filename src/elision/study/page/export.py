"""The page of an export: stages, agreement, operations."""

from collections.abc import Sequence

from elision.common.printable import escaped
from elision.export import Arena
from elision.export.devices import Fit
from elision.export.stages import Exported
from elision.report.memory_map import memory_map
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

    def add_memory(self, plan: Arena, fits: Sequence[Fit]) -> None:
        """The memory map, its tensors, and the devices asked for."""
        drawn = [
            (t.name, t.size_bytes, t.first, t.last, t.offset) for t in plan.tensors
        ]
        limit = min((fit.device.ram_bytes for fit in fits), default=None)
        self.sections.append(
            Section(
                "Memory",
                "counted here",
                f"{escaped(plan.text())}. The line is what is live; a box is a tensor, "
                "its steps and its addresses.",
                (
                    memory_map(drawn, plan.order, title="Arena", limit_bytes=limit),
                    rows_as_html(plan.rows(), ("tensor",)),
                ),
            )
        )
        if fits:
            words = (
                "device",
                "core",
                "fits",
                *(key for key in fits[0].row() if "(" in key),
            )
            self.sections.append(
                Section(
                    "Devices",
                    "estimated here",
                    " ".join(
                        f"{escaped(fit.device.name)}: memory and clock of "
                        f"{escaped(fit.device.source)}; {escaped(fit.device.basis)}."
                        for fit in fits
                    ),
                    (rows_as_html([fit.row() for fit in fits], words),),
                )
            )
