"""The figures of a study's report, each from plain numbers to an SVG string."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from elision.report.style import (
    LEGEND,
    PRODUCT_COLOURS,
    TITLE,
    Mark,
    drawing,
    further_lines,
    plain_numbers,
    prefixed_numbers,
    svg,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = [
    "accuracy_curves",
    "cost_bars",
    "density_map",
    "share_map",
    "share_scale",
]


def accuracy_curves(
    curves: dict[str, list[float]],
    losses: dict[str, list[float]],
    spreads: Mapping[str, list[float]],
    marks: Mapping[str, Mark],
    *,
    title: str = "Test accuracy",
    percent: bool = True,
) -> str:
    """Test accuracy, or another metric, and training loss by epoch, one line a recipe.

    Args:
        curves: recipe -> metric after each epoch.
        losses: recipe -> mean training loss of each epoch.
        spreads: recipe -> deviation of the metric over seeds, where there are several.
        marks: colour and marker of each recipe.
        title: what the metric is.
        percent: it is a share in [0, 1]; else its axis is logarithmic.
    """
    from matplotlib.ticker import MaxNLocator

    with drawing(9.2, 3.1) as figure:
        left, right = figure.subplots(1, 2)
        for name, values in curves.items():
            colour, drawn = (
                marks[name].colour,
                {"marker": marks[name].marker, "ms": 3.5},
            )
            epochs = range(1, len(values) + 1)
            label = wrapped(name, LEGEND, 8)
            left.plot(epochs, values, color=colour, label=label, **drawn)
            if name in spreads:
                low, high = np.add(values, [[-1], [1]] * np.array(spreads[name]))
                left.fill_between(epochs, low, high, color=colour, alpha=0.18, lw=0)
            right.plot(epochs, losses[name], color=colour, **drawn)
        left.set(title=title, xlabel="epoch")
        right.set(title="Training loss", xlabel="epoch")
        if percent:
            left.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
        else:
            left.set_yscale("log")
            plain_numbers(left.yaxis)
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.legend(loc="outside right upper", fontsize=8)
        return svg(figure)


def cost_bars(
    machines: list[str],
    recipes: list[str],
    parts: dict[str, np.ndarray],
    unit: str,
    colours: Mapping[str, str] = PRODUCT_COLOURS,
) -> str:
    """One panel a recipe: a bar per machine, stacked by product or by something else.

    Args:
        machines: names of the bars.
        recipes: names of the panels.
        parts: product -> values of shape (recipes, machines).
        unit: what is counted.
        colours: of the parts.
    """
    with drawing(9.2, 0.5 + 0.32 * len(machines) + 0.6) as figure:
        row = figure.subplots(1, len(recipes), sharex=True, sharey=True, squeeze=False)[
            0
        ]
        for r, (axes, recipe) in enumerate(zip(row, recipes, strict=True)):
            left = np.zeros(len(machines))
            for product, values in parts.items():
                axes.barh(
                    range(len(machines)),
                    values[r],
                    left=left,
                    color=colours[product],
                    height=0.66,
                    label=product,
                )
                left = left + values[r]
            axes.set(title=wrapped(recipe, 8.0 / len(recipes), 9.5))
            axes.set_yticks(range(len(machines)), machines)
            axes.invert_yaxis() if r == 0 else None
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="x", labelsize=7)
            axes.xaxis.get_major_locator().set_params(nbins=4)
            prefixed_numbers(axes.xaxis)
        figure.supxlabel(unit, fontsize=8.5)
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper right", ncols=len(parts), fontsize=8
        )
        return svg(figure)


def density_map(
    layers: list[str], columns: list[str], panels: dict[str, np.ndarray]
) -> str:
    """Realised density of every operand of every product, a panel a recipe.

    Args:
        layers: rows.
        columns: operands, the product and the operand in a line each.
        panels: recipe -> densities of shape (layers, columns), NaN where the layer does
            not compute the product.
    """
    beside = min(len(panels), 4)
    below = -(-len(panels) // beside)
    titles = [wrapped(recipe, 7.6 / beside, TITLE) for recipe in panels]
    height = 0.9 + 0.17 * len(layers) + further_lines(titles)
    with drawing(9.2, below * height) as figure:
        grid = figure.subplots(below, beside, sharey=True, squeeze=False)
        image = None
        for axes, title, values in zip(
            grid.flat, titles, panels.values(), strict=False
        ):
            image = share_map(axes, values, layers, columns)
            axes.set(title=title)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        share_scale(figure, image, grid)
        return svg(figure)


def share_map(
    axes: "Axes", values: np.ndarray, layers: list[str], columns: list[str]
) -> "AxesImage":
    """Draw shares in [0, 1], of shape (layers, columns); NaN stays blank.

    A column's name may have several lines, so that names stand upright beside each other.
    """
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=1, aspect="auto"
    )
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), columns, fontsize=6.5)
    axes.set_yticks(range(len(layers)), layers, fontsize=6.5)
    return image


def share_scale(figure: "Figure", image: "AxesImage | None", panels: Any) -> None:
    """The colours of :func:`share_map` in percent, beside the panels."""
    bar = figure.colorbar(image, ax=panels, shrink=0.7, pad=0.01)  # pyright: ignore[reportArgumentType]
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    bar.ax.tick_params(labelsize=7)
    bar.solids.set_rasterized(True)  # pyright: ignore[reportOptionalMemberAccess]  # an image, as maps are
