"""A metric over a cost, a dot a recipe, the Pareto front marked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elision.report.style import INK, Mark, drawing, plain_numbers, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Tradeoff", "tradeoff_figure"]


@dataclass(frozen=True)
class Tradeoff:
    """A recipe's dot.

    Attributes:
        cost: over a reference.
        score: of the metric.
        error: standard error of the score; None of one seed.
        text: shown when the dot is pointed at.
    """

    cost: float
    score: float
    error: float | None
    text: str


def tradeoff_figure(
    dots: Mapping[str, Tradeoff],
    front: Sequence[str],
    marks: Mapping[str, Mark],
    *,
    title: str,
    unit: str,
    percent: bool,
) -> str:
    """Every recipe by cost and metric, named beside its dot.

    Args:
        dots: recipe -> its dot.
        front: recipes of the Pareto front, cheapest first; ringed and joined.
        marks: colour and marker of each recipe.
        title: what the metric is.
        unit: what the cost is over, for the axis.
        percent: the metric is a share in [0, 1].

    Example:
        >>> from elision.report.style import marks_of
        >>> drawn = tradeoff_figure(
        ...     {"swat": Tradeoff(0.12, 0.8, None, "swat: 80 %")}, ["swat"],
        ...     marks_of(["swat"]), title="Test accuracy", unit="work", percent=True,
        ... )
        >>> "<title>swat: 80 %</title>" in drawn
        True
    """
    costs = [dot.cost for dot in dots.values()]
    middle = math.sqrt(min(costs) * max(costs))
    hover: dict[str, str] = {}
    with drawing(9.2, 3.6) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.step(
            [dots[recipe].cost for recipe in front],
            [dots[recipe].score for recipe in front],
            where="post",
            color=INK,
            linewidth=0.9,
            linestyle=":",
        )
        for recipe, dot in dots.items():
            mark, gid = marks[recipe], f"dot-{len(hover)}"
            hover[gid] = dot.text
            if dot.error is not None:
                axes.errorbar(
                    dot.cost, dot.score, dot.error, color=mark.colour, capsize=3, lw=1
                )
            if recipe in front:
                axes.plot(
                    dot.cost, dot.score, "o", mfc="none", color=INK, ms=14, mew=0.9
                )
            axes.plot(
                dot.cost, dot.score, mark.marker, color=mark.colour, ms=8, gid=gid
            )
            side = 1 if dot.cost <= middle else -1  # names stay inside the axes
            axes.annotate(
                recipe,
                (dot.cost, dot.score),
                (11 * side, 6),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                fontsize=8,
            )
        axes.margins(x=0.16, y=0.22)
        axes.set(
            title=f"{title}; ringed: nothing is both cheaper and better", xlabel=unit
        )
        _number(axes, percent=percent)
        return svg(figure, hover)


def _number(axes: "Axes", *, percent: bool) -> None:
    """Costs as factors, the metric in its unit."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}x")
    axes.xaxis.set_minor_formatter(NullFormatter())
    if percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    else:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
