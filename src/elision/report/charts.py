"""The figures of a study's report, each from plain numbers to an SVG string."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from elision.report.style import (
    INK,
    PALETTE,
    PRODUCT_COLOURS,
    drawing,
    plain_numbers,
    svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = [
    "accuracy_curves",
    "cost_bars",
    "density_map",
    "grouped_bars",
    "share_map",
    "share_scale",
]


def accuracy_curves(
    curves: dict[str, list[float]],
    losses: dict[str, list[float]],
    spreads: Mapping[str, list[float]],
    *,
    title: str = "Test accuracy",
    percent: bool = True,
) -> str:
    """Test accuracy, or another metric, and training loss by epoch, one line a recipe.

    Args:
        curves: recipe -> metric after each epoch.
        losses: recipe -> mean training loss of each epoch.
        spreads: recipe -> deviation of the metric over seeds, where there are several.
        title: what the metric is.
        percent: it is a share in [0, 1]; else its axis is logarithmic.
    """
    with drawing(9.2, 3.1) as figure:
        left, right = figure.subplots(1, 2)
        for colour, (name, values) in zip(PALETTE * 4, curves.items(), strict=False):
            epochs = range(1, len(values) + 1)
            left.plot(epochs, values, color=colour, label=name, marker="o", ms=3.5)
            if name in spreads:
                low, high = np.add(values, [[-1], [1]] * np.array(spreads[name]))
                left.fill_between(epochs, low, high, color=colour, alpha=0.18, lw=0)
            right.plot(epochs, losses[name], color=colour, marker="o", ms=3.5)
        left.set(title=title, xlabel="epoch")
        right.set(title="Training loss", xlabel="epoch")
        if percent:
            left.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        else:
            left.set_yscale("log")
            plain_numbers(left.yaxis)
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
        left.legend(loc="lower right" if percent else "upper right", fontsize=8)
        return svg(figure)


def grouped_bars(
    groups: list[str],
    series: dict[str, list[float]],
    *,
    title: str,
    percent: bool = False,
    log: bool = False,
) -> str:
    """Bars in groups, the value written over each.

    Args:
        groups: labels of the groups.
        series: name of a bar -> its value in every group.
        title: what the values are, with their unit.
        percent: values are shares in [0, 1].
        log: logarithmic axis.
    """
    with drawing(9.2, 2.9) as figure:
        axes = figure.subplots()
        width = 0.8 / len(series)
        for i, (name, values) in enumerate(series.items()):
            colour = PRODUCT_COLOURS.get(name, PALETTE[i % len(PALETTE)])
            places = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
            bars = axes.bar(places, values, width * 0.92, color=colour, label=name)
            texts = [f"{100 * v:.0f} %" if percent else f"{v:.3g}" for v in values]
            axes.bar_label(bars, texts, fontsize=7, padding=2, color=INK)
        axes.set(title=title)
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(visible=False, axis="x")
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
            axes.set_ylim(0, 1.12)
        if log:
            axes.set_yscale("log")
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderaxespad=0
        )
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
            axes.set(title=recipe)
            axes.set_yticks(range(len(machines)), machines)
            axes.invert_yaxis() if r == 0 else None
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="x", labelsize=7)
            axes.xaxis.get_major_locator().set_params(nbins=4)
            axes.xaxis.get_offset_text().set_fontsize(7)
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
        columns: operands, as ``product operand``.
        panels: recipe -> densities of shape (layers, columns), NaN where the layer does
            not compute the product.
    """
    height = 1.6 + 0.17 * len(layers)
    with drawing(9.2, height) as figure:
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        image = None
        for axes, (recipe, values) in zip(row, panels.items(), strict=True):
            image = share_map(axes, values, layers, columns)
            axes.set(title=recipe)
        share_scale(figure, image, row)
        return svg(figure)


def share_map(
    axes: "Axes", values: np.ndarray, layers: list[str], columns: list[str]
) -> "AxesImage":
    """Draw shares in [0, 1], of shape (layers, columns); NaN stays blank."""
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=1, aspect="auto"
    )
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=6.5)
    axes.set_yticks(range(len(layers)), layers, fontsize=6.5)
    return image


def share_scale(figure: "Figure", image: "AxesImage | None", panels: Any) -> None:
    """The colours of :func:`share_map` in percent, beside the panels."""
    bar = figure.colorbar(image, ax=panels, shrink=0.7, pad=0.01)  # pyright: ignore[reportArgumentType]
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    bar.ax.tick_params(labelsize=7)
