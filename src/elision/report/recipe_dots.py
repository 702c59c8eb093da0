"""Dots of recipes: one number of each recipe a row and panel, from plain numbers to SVG."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from elision.report.style import INK, TITLE, Mark, drawing, further_lines, svg, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["recipe_dots"]

#: Inches: of the figure's width, of the part of it that rows' names take, of a row and of
#: a recipe in it, and of titles, axis and legend.
_WIDTH, _NAMES, _ROW, _RECIPE, _AROUND = 9.2, 1.3, 0.16, 0.045, 1.15
#: Panels beside one another, size of the legend in points, and inches of its lines.
_BESIDE, _LEGEND, _LINE = 4, 8, 0.17
#: Share of a row that its dots spread over.
_SPREAD = 0.6

Scale = Literal["share", "ratio", "count"]


def recipe_dots(
    rows: Sequence[str],
    panels: Sequence[str],
    values: Mapping[str, np.ndarray],
    marks: Mapping[str, Mark],
    *,
    unit: str,
    scale: Scale,
) -> str:
    """Panels of rows with a dot a recipe; the value is written when a dot is pointed at.

    Args:
        rows: names of the rows, from above.
        panels: titles of the panels.
        values: recipe -> numbers of shape (panels, rows); NaN leaves a dot out.
        marks: colour and marker of each recipe.
        unit: what is counted.
        scale: ``"share"`` in [0, 1] on a linear axis, ``"ratio"`` to a reference or
            ``"count"`` on logarithmic ones.

    Example:
        >>> from elision.report.style import marks_of
        >>> drawn = recipe_dots(
        ...     ["conv1"], ["ant"], {"swat": np.array([[0.25]])}, marks_of(["swat"]),
        ...     unit="cycles over dense", scale="ratio",
        ... )
        >>> "<title>swat, conv1, ant: 0.25x</title>" in drawn
        True
    """
    beside = min(len(panels), _BESIDE)
    below = -(-len(panels) // beside)
    titles = [wrapped(panel, (_WIDTH - _NAMES) / beside, TITLE) for panel in panels]
    labels = [wrapped(recipe, _WIDTH - 1, _LEGEND) for recipe in values]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(len(labels), 110 // (longest + 6)))
    lines = sum(label.count("\n") + 1 for label in labels)
    around = _AROUND + further_lines(titles)
    height = below * (len(rows) * (_ROW + _RECIPE * len(values)) + around)
    height += _LINE * (-(-lines // columns) - 1)
    hover: dict[str, str] = {}
    with drawing(_WIDTH, height) as figure:
        grid = figure.subplots(below, beside, sharex=True, sharey=True, squeeze=False)
        for number, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
            axes.set(title=titles[number])
            for recipe, place, value, row in _dots(rows, values, number):
                gid = f"dot-{len(hover)}"
                hover[gid] = f"{recipe}, {row}, {panel}: {_TEXTS[scale](value)}"
                mark = marks[recipe]
                axes.plot(value, place, mark.marker, color=mark.colour, ms=4.6, gid=gid)
            _arrange(axes, rows, scale)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel(unit, fontsize=8.5)
        _legend(figure, dict(zip(values, labels, strict=True)), marks, columns)
        return svg(figure, hover)


def _dots(
    rows: Sequence[str], values: Mapping[str, np.ndarray], panel: int
) -> list[tuple[str, float, float, str]]:
    """Recipe, height, value and row of every dot of a panel; recipes stand apart."""
    apart = _SPREAD / max(len(values), 2)
    return [
        (recipe, row + apart * (number - (len(values) - 1) / 2), float(value), name)
        for number, (recipe, found) in enumerate(values.items())
        for row, (name, value) in enumerate(zip(rows, found[panel], strict=True))
        if np.isfinite(value)
    ]


def _arrange(axes: "Axes", rows: Sequence[str], scale: Scale) -> None:
    """Rows from above, named once, and an axis in the unit's own numbers."""
    axes.set_yticks(range(len(rows)), rows, fontsize=7.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(visible=True, axis="y", linewidth=0.4)
    if scale == "share":
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks((0, 0.5, 1), ("0 %", "50 %", "100 %"))
        return
    axes.set_xscale("log")
    if scale == "ratio":
        axes.axvline(1, color=INK, linewidth=0.8)
    _number_log_axis(axes, scale)


def _number_log_axis(axes: "Axes", scale: Scale) -> None:
    """Powers of ten, and two numbers between them where the axis is short."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_xlim()
    between = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=between, numticks=8))
    axes.xaxis.set_major_formatter(lambda value, _: _TEXTS[scale](value))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(
    figure: "Figure", labels: Mapping[str, str], marks: Mapping[str, Mark], columns: int
) -> None:
    """The recipes above the panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], ls="", marker=marks[r].marker, color=marks[r].colour, label=label
        )
        for r, label in labels.items()
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, fontsize=_LEGEND
    )


def _prefixed(value: float) -> str:
    """A count with the prefix of its power of a thousand.

    Example:
        >>> _prefixed(1_205_000), _prefixed(200)
        ('1.21 M', '200')
    """
    power = max(0, int(np.floor(np.log10(value) / 3 + 1e-9))) if value > 0 else 0
    return f"{value / 1000**power:.3g} {' kMGTP'[power]}".strip()


_TEXTS: dict[Scale, Callable[[float], str]] = {
    "share": lambda value: f"{100 * value:.1f} %",
    "ratio": lambda value: f"{value:.3g}x",
    "count": _prefixed,
}
