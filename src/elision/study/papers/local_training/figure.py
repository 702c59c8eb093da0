"""Figure of the local-training study: rounds to a target, and loss by traffic."""

from collections.abc import Sequence

from elision.report.style import PALETTE, drawing, svg
from elision.study.papers.local_training.diloco import LossRow
from elision.study.papers.local_training.fedavg import RoundsRow

__all__ = ["local_training_svg"]


def local_training_svg(rounds: Sequence[RoundsRow], losses: Sequence[LossRow]) -> str:
    """Bars of rounds a case and partition; points of loss over traffic.

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
    with drawing(9.6, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        cases = list(dict.fromkeys(row.case for row in rounds))
        for i, data in enumerate(dict.fromkeys(row.data for row in rounds)):
            own = [r for r in rounds if r.data == data and r.rounds is not None]
            left.barh(
                [cases.index(r.case) + 0.4 * i for r in own],
                [r.rounds or 0 for r in own],
                0.38,
                xerr=[r.spread or 0 for r in own],
                color=PALETTE[1 + i],
                label=data,
            )
        left.set_yticks([i + 0.2 for i in range(len(cases))], cases, fontsize=7)
        left.invert_yaxis()
        left.set(xlabel="rounds to the target", xscale="log")
        left.set_title("FedAvg on digits, measured")
        if cases:
            left.legend(fontsize=8)
        sent = [row for row in losses if row.megabytes]
        for i, row in enumerate(sent):
            right.errorbar(
                row.megabytes,
                row.loss,
                yerr=row.spread or 0,
                fmt="osD^vPX"[i % 7],
                ms=5,
                color=PALETTE[i % len(PALETTE)],
                label=row.case,
            )
        right.set(xlabel="MB a worker sends", ylabel="test loss", xscale="log")
        right.set_title("DiLoCo on photographs, measured")
        right.legend(fontsize=6)
        return svg(figure)
