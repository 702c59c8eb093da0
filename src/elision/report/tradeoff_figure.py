"""A metric over a cost, a dot a recipe, the Pareto front marked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elision.report.style import (
    INK,
    LETTER,
    POINTS,
    Mark,
    drawing,
    plain_numbers,
    save,
    svg,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Tradeoff", "Tradeoffs", "save_tradeoffs", "tradeoff_figure"]

#: Inches of the figure: its width, and the height of each panel.
_WIDTH, _HEIGHT = 9.2, 3.6


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


@dataclass(frozen=True)
class Tradeoffs:
    """A panel: every recipe by cost and metric, named beside its dot.

    Attributes:
        dots: recipe -> its dot.
        front: recipes of the Pareto front, cheapest first; ringed and joined.
        marks: colour and marker of each recipe.
        title: what the metric is.
        unit: what the cost is over, for the axis.
        percent: the metric is a share in [0, 1].
    """

    dots: Mapping[str, Tradeoff]
    front: Sequence[str]
    marks: Mapping[str, Mark]
    _: KW_ONLY
    title: str
    unit: str
    percent: bool


def tradeoff_figure(panel: Tradeoffs) -> str:
    """A panel as an inline SVG element.

    Example:
        >>> from elision.report.style import marks_of
        >>> drawn = tradeoff_figure(Tradeoffs(
        ...     {"swat": Tradeoff(0.12, 0.8, None, "swat: 80 %")}, ["swat"],
        ...     marks_of(["swat"]), title="Test accuracy", unit="work", percent=True,
        ... ))
        >>> "<title>swat: 80 %</title>" in drawn
        True
    """
    hover: dict[str, str] = {}
    with drawing(_WIDTH, _HEIGHT) as figure:
        _draw(figure.subplots(), panel, hover)
        return svg(figure, hover)


def save_tradeoffs(panels: Sequence[Tradeoffs], path: Path) -> None:
    """Panels below one another as a file.

    Args:
        panels: at least one.
        path: of an SVG, a PDF or a PNG, as its suffix says.

    Raises:
        OSError: it cannot be written.
    """
    hover: dict[str, str] = {}
    with drawing(_WIDTH, _HEIGHT * len(panels)) as figure:
        rows = figure.subplots(len(panels), squeeze=False)
        for axes, panel in zip(rows[:, 0], panels, strict=True):
            _draw(axes, panel, hover)
        save(figure, path, hover)


def _draw(axes: "Axes", panel: Tradeoffs, hover: dict[str, str]) -> None:
    """Draw a panel; ``hover`` is given the texts of its dots."""
    dots, front, marks = panel.dots, panel.front, panel.marks
    costs = [dot.cost for dot in dots.values()]
    middle = math.sqrt(min(costs) * max(costs))
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
            axes.plot(dot.cost, dot.score, "o", mfc="none", color=INK, ms=14, mew=0.9)
        axes.plot(dot.cost, dot.score, mark.marker, color=mark.colour, ms=8, gid=gid)
    axes.margins(x=0.16, y=0.22)
    _number(axes, percent=panel.percent)
    _name(axes, dots, middle)
    several = any(dot.error is not None for dot in dots.values())
    bars = "\nbars: standard error of the mean over the seeds" if several else ""
    axes.set(
        title=f"{panel.title}; ringed: nothing is both cheaper and better",
        xlabel=panel.unit + bars,
    )


#: Half of a dot, in points.
_DOT = 4

#: Size of the names' type, and places of a name beside its dot, in points: to which side,
#: and how far up. The first that is free is taken.
_TYPE = 8
_PLACES = tuple((side, up) for up in (6, -13, 17, -24, 28) for side in (1, -1))


def _name(axes: "Axes", dots: Mapping[str, Tradeoff], middle: float) -> None:
    """Write each recipe beside its dot, away from dots, bars and names that are there."""
    axes.autoscale_view()
    figure = axes.get_figure(root=True)
    assert figure is not None
    to_points = POINTS / figure.dpi
    taken: list[tuple[float, float, float, float]] = []  # left, right, bottom, top
    for dot in dots.values():
        ends = [(dot.cost, dot.score + sign * (dot.error or 0)) for sign in (-1, 1)]
        (x, bottom), (_, top) = axes.transData.transform(ends) * to_points
        taken.append((x - _DOT, x + _DOT, bottom - _DOT, top + _DOT))
    for recipe, dot in dots.items():
        inwards = 1 if dot.cost <= middle else -1  # names stay inside the axes
        x, y = axes.transData.transform((dot.cost, dot.score)) * to_points
        name = wrapped(recipe, _WIDTH / 2, _TYPE)
        wide = LETTER * _TYPE * max(map(len, name.splitlines()))
        deep = 1.2 * _TYPE * name.count("\n")  # of the lines below the first
        for side, up in _PLACES:
            left = x + 11 if side * inwards > 0 else x - 11 - wide
            low = y + up
            if not any(
                low - deep < top
                and bottom < low + _TYPE
                and left < end
                and start < left + wide
                for start, end, bottom, top in taken
            ):
                break
        else:
            side, up = _PLACES[0]
            left, low = x, y
        taken.append((left, left + wide, low - deep, low + _TYPE))
        axes.annotate(
            name,
            (dot.cost, dot.score),
            (11 * side * inwards, up),
            textcoords="offset points",
            ha="left" if side * inwards > 0 else "right",
            fontsize=_TYPE,
        )


def _number(axes: "Axes", *, percent: bool) -> None:
    """Costs as factors, the metric in its unit."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    # Of costs that lie close together, finer ticks: at least two give the axis its scale.
    finer = LogLocator(subs=(1.0, 2.0, 5.0)), LogLocator(subs=range(1, 10))
    low, high = axes.get_xlim()
    for ticks in (*finer, MaxNLocator(4)):
        axes.xaxis.set_major_locator(ticks)
        if sum(low <= tick <= high for tick in ticks.tick_values(low, high)) > 1:
            break
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}x")
    axes.xaxis.set_minor_formatter(NullFormatter())
    if percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    else:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
