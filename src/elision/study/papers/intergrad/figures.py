"""Figures of the reproduction of interleaved gradients."""

from collections.abc import Sequence

from elision.report.style import INK, drawing, series_mark, svg
from elision.study.papers.intergrad.layers import FullyConnectedRow
from elision.study.papers.intergrad.steps import PUBLISHED_STEPS, StepRow

__all__ = ["fully_connected_svg", "savings_svg"]

#: Published for fully connected layers: fewer cycles, and fewer memory accesses.
CYCLES_BAND, ACCESSES = (1.4, 2.2), 1.9

#: What is published is in ink, what is ours in colour.
PUBLISHED = INK


def fully_connected_svg(rows: Sequence[FullyConnectedRow]) -> str:
    """Ratios of a layer over batch / side, with what was published.

    Args:
        rows: any number of array sides, each drawn as a dot, the median joined.
    """
    curves = {
        "cycles: fewer by a factor of": {
            drain: [
                (r.batch / r.side, r.cycles_ratio) for r in rows if r.drain == drain
            ]
            for drain in dict.fromkeys(row.drain for row in rows)
        },
        "SRAM accesses: fewer by a factor of": {
            "gradients only": [(r.batch / r.side, r.accesses_ratio) for r in rows],
            "with the update in the array": [
                (r.batch / r.side, r.accesses_ratio_with_update) for r in rows
            ],
        },
    }
    with drawing(9.2, 3.4) as figure:
        panels = figure.subplots(1, 2)
        panels[0].axhspan(*CYCLES_BAND, color=PUBLISHED, alpha=0.12, lw=0)
        panels[0].text(4, CYCLES_BAND[1], "published band ", ha="right", va="top")
        panels[1].axhline(ACCESSES, color=PUBLISHED, lw=1.2, ls="--")
        panels[1].text(4, ACCESSES, "published ", ha="right", va="bottom")
        for axes, (title, lines) in zip(panels, curves.items(), strict=True):
            for index, (name, points) in enumerate(lines.items()):
                x, y = zip(*sorted(points), strict=True)
                colour = series_mark(index).colour
                axes.plot(x, y, color=colour, marker="o", ms=3, lw=1.2, label=name)
            axes.set(title=title, xlabel="batch / side of the array", xscale="log")
            axes.set_ylim(0.9, 2.6)
            axes.set_xticks(
                [1 / 64, 1 / 16, 1 / 4, 1, 4], ["1/64", "1/16", "1/4", "1", "4"]
            )
            axes.minorticks_off()
            axes.legend(fontsize=8)
        return svg(figure)


def savings_svg(rows: Sequence[StepRow]) -> str:
    """Range of the savings of training steps against WS, with what was published.

    Args:
        rows: of :func:`elision.study.papers.intergrad.steps.training_steps`.
    """
    chosen = [
        row
        for row in rows
        if (row.baseline, row.area) == ("WS", "equal area, fewer arrays")
    ]
    networks = list(dict.fromkeys(row.network for row in chosen))
    columns = {"cycles": "cycles", "memory": "sram", "energy": "energy"}
    with drawing(9.2, 0.9 + 0.3 * len(networks)) as figure:
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (quantity, column) in zip(panels, columns.items(), strict=True):
            for place, name in enumerate(networks):
                values = sorted(getattr(r, column) for r in chosen if r.network == name)
                middle = values[len(values) // 2]
                own = series_mark(0).colour
                axes.plot(values, [place] * len(values), color=own, lw=5, alpha=0.35)
                axes.plot(middle, place, color=own, marker="o", ms=5)
                if name in PUBLISHED_STEPS:
                    published = getattr(PUBLISHED_STEPS[name], quantity)
                    axes.plot(
                        published, place, color=PUBLISHED, marker="D", ms=6, ls=""
                    )
            axes.axvline(0, color=INK, lw=0.8)
            axes.set(title=f"{quantity} saved, %")
            axes.set_yticks(range(len(networks)), networks)
            axes.grid(visible=False, axis="y")
        panels[0].invert_yaxis()
        figure.supxlabel(
            "bar: array sides, batches and drain rules; dot: median; diamond: published",
            fontsize=8.5,
        )
        return svg(figure)
