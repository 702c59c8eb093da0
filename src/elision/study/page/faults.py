"""The page of faults: networks under four measures, bits, layers, recovery."""

from collections.abc import Mapping, Sequence
from typing import Any

from elision.common.printable import escaped
from elision.faults.training.recovery import smoothed
from elision.report.fault_figures import bit_curves, layer_bars, recovery_curves
from elision.report.table import rows_as_html
from elision.study.faults import (
    MEASURES,
    Network,
    StruckTraining,
    curves_by_bit,
    network_rows,
    recovery_rows,
    shares_by_layer,
)
from elision.study.page.sections.base import Section
from elision.study.page.subject import SubjectPage

__all__ = ["FaultPage"]


class FaultPage(SubjectPage):
    """The page of faults; see :class:`~elision.study.page.subject.SubjectPage`.

    Example:
        >>> page = FaultPage("a network", "A network.")
        >>> "<h1>" in page.html()
        True
    """

    template = "faults.html.j2"

    def add_networks(self, networks: Sequence[Network], fault: str) -> None:
        """Table of outcomes and measures, curves by bit, a map of layers.

        Args:
            networks: struck, the one that others are compared with first.
            fault: in words.
        """
        rows = network_rows(networks)
        curves = curves_by_bit(networks)
        self.sections.append(
            Section(
                "Networks under faults",
                "measured here",
                f"{escaped(fault)}. <b>wrong</b>: trials in which a prediction changed and no "
                "score was NaN or infinite, with the interval of 95 %. <b>changed</b>: share "
                "of predictions that a trial changes. The second table says how many "
                "times as resilient as the first network each is, by one measure each: as "
                "many faults in every network; as many a stored bit; the same, a value that "
                "is not zero; as many a stored bit and unit of time, an inference taking "
                "time in proportion to its work. <b>Which network wins depends on the "
                "measure.</b>",
                (
                    rows_as_html(
                        [_without(row, MEASURES) for row in rows], ("network",)
                    ),
                    rows_as_html([_only(row, MEASURES) for row in rows], ("network",)),
                ),
            )
        )
        if any(curves.values()):
            figure = bit_curves(
                {n: c for n, c in curves.items() if c}, "Wrong trials by bit"
            )
            self.figures["bits"] = figure
            self.sections.append(
                Section(
                    "By bit",
                    "measured here",
                    "Equally many trials at every position of the stored word.",
                    (figure,),
                )
            )
        layers = shares_by_layer(networks)
        if layers:
            figure = layer_bars(layers, "Predictions changed by one fault, by layer")
            self.figures["layers"] = figure
            self.sections.append(
                Section(
                    "By layer",
                    "measured here",
                    "Equally many trials in every layer, so a small layer is not hit less.",
                    (figure,),
                )
            )

    def add_trainings(self, trainings: Sequence[StruckTraining], fault: str) -> None:
        """Losses of struck trainings beside the clean ones, and how they came back."""
        figures: list[str] = []
        for name in dict.fromkeys(t.name for t in trainings):
            own = [t for t in trainings if t.name == name]
            curves: dict[str, Sequence[float]] = {"clean": _mean(own[0].clean)}
            curves |= {t.site: _mean(t.struck) for t in own}
            window = own[0].first, own[0].last
            figure = recovery_curves(
                curves, window, f"{name}: loss, faults in the band"
            )
            self.figures[f"recovery-{len(figures)}"] = figure
            figures.append(figure)
        table = rows_as_html(recovery_rows(trainings), ("training", "struck", "end"))
        self.sections.append(
            Section(
                "Faults while training",
                "measured here",
                f"{escaped(fault)}. Losses are means of 10 steps. <b>recovered</b>: the loss "
                "stays within 5 % of the clean one from there on; <b>silent</b>: it is "
                "finite and never does.",
                (table, *figures),
            )
        )

    def add_table(
        self, title: str, note: str, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """One more table, with a note."""
        table = rows_as_html([dict(row) for row in rows])
        self.sections.append(Section(title, "measured here", note, (table,)))


def _without(row: dict[str, Any], measures: Mapping[str, str]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in measures.values()}


def _only(row: dict[str, Any], measures: Mapping[str, str]) -> dict[str, Any]:
    return {"network": row["network"]} | {k: row[k] for k in measures.values()}


def _mean(losses: Sequence[float], window: int = 10) -> list[float]:
    return smoothed(losses, window).tolist()
