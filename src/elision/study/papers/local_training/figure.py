"""Figure of the local-training study: rounds to a target, and loss by traffic."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from elision.report.style import drawing, plain_numbers, series_mark, svg
from elision.study.papers.local_training.diloco import LossRow
from elision.study.papers.local_training.fedavg import RoundsRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["local_training_svg"]

#: Dots lie on one another, so that each has a marker of its own.
_MARKERS = "osD^vPX*<"


def local_training_svg(rounds: Sequence[RoundsRow], losses: Sequence[LossRow]) -> str:
    """Dots of rounds a case and partition, and of loss over traffic.

    Args:
        rounds: those that reached their target are drawn.
        losses: those that sent anything are drawn, in the order of the table.

    Returns:
        An SVG element.

    Example:
        >>> row = LossRow("synchronous", 1.0, 0.1, 0.6, 2.0, 1.0)
        >>> local_training_svg([], [row])[:4]
        '<svg'
    """
    with drawing(11.0, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        cases = list(dict.fromkeys(row.case for row in rounds))
        for i, data in enumerate(dict.fromkeys(row.data for row in rounds)):
            own = [r for r in rounds if r.data == data and r.rounds is not None]
            left.errorbar(
                [r.rounds or 0 for r in own],
                [cases.index(r.case) + 0.3 * i for r in own],
                xerr=[r.spread or 0 for r in own],
                fmt=series_mark(i).marker,
                ms=5,
                color=series_mark(i).colour,
                label=data,
            )
        left.set_yticks([i + 0.15 for i in range(len(cases))], cases, fontsize=7)
        left.invert_yaxis()
        left.set(xlabel="rounds to the target", xscale="log")
        _number(left)
        left.set_title("FedAvg on digits, measured")
        if cases:
            left.legend(fontsize=8)
        sent = [row for row in losses if row.megabytes]
        for i, row in enumerate(sent):
            right.errorbar(
                row.megabytes,
                row.loss,
                yerr=row.spread or 0,
                fmt=_MARKERS[i % len(_MARKERS)],
                ms=5,
                color=series_mark(i).colour,
                label=row.case,
            )
        right.set(xlabel="MB a worker sends", ylabel="test loss", xscale="log")
        _number(right)
        right.set_title("DiLoCo on photographs, measured")
        if sent:
            figure.legend(
                *right.get_legend_handles_labels(),
                loc="outside right upper",
                fontsize=8,
            )
        return svg(figure)


def _number(axes: "Axes") -> None:
    """A logarithmic axis across with its numbers written out, three a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    plain_numbers(axes.xaxis)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
