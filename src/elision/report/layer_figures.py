"""Figures of single layers on accelerators, from plain numbers to SVG strings."""

import numpy as np

from elision.report.charts import share_map, share_scale
from elision.report.style import PALETTE, drawing, svg

__all__ = ["layer_bars", "utilisation_map"]


def _upright(labels: list[str]) -> float:
    """Inches that the longest of upright labels takes below a panel."""
    return 0.062 * max(map(len, labels))


def layer_bars(
    layers: list[str], machines: list[str], panels: dict[str, np.ndarray], unit: str
) -> str:
    """A panel a recipe, one above the other: a group of bars per layer, one a machine.

    Args:
        layers: names of the groups, in order of execution.
        machines: names of the bars.
        panels: recipe -> values of shape (machines, layers); 0 leaves a bar out.
        unit: what is counted; the axis is logarithmic.
    """
    with drawing(9.2, 0.5 + 1.45 * len(panels) + _upright(layers)) as figure:
        rows = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)
        width = 0.84 / len(machines)
        places = np.arange(len(layers))
        for axes, (recipe, values) in zip(rows[:, 0], panels.items(), strict=True):
            for i, (machine, bars) in enumerate(zip(machines, values, strict=True)):
                axes.bar(
                    places + (i - (len(machines) - 1) / 2) * width,
                    np.where(bars > 0, bars, np.nan),
                    width,
                    color=PALETTE[i % len(PALETTE)],
                    alpha=1 if i < len(PALETTE) else 0.55,
                    label=machine,
                )
            axes.set(title=recipe)
            axes.set_yscale("log")
            axes.grid(visible=False, axis="x")
            axes.set_xticks(places, layers, rotation=90, fontsize=6.5)
            axes.tick_params(axis="y", labelsize=7)
            axes.set_xlim(-0.6, len(layers) - 0.4)
        figure.supylabel(unit, fontsize=8.5)
        handles, labels = rows[0, 0].get_legend_handles_labels()
        columns = min(len(machines), 5)
        figure.legend(
            handles, labels, loc="outside upper right", ncols=columns, fontsize=7.5
        )
        return svg(figure)


def utilisation_map(
    layers: list[str], columns: list[str], panels: dict[str, np.ndarray]
) -> str:
    """A map a recipe, two beside each other: layers down, machines and products across.

    Args:
        layers: names of the rows.
        columns: names of the columns.
        panels: recipe -> shares in [0, 1] of shape (layers, columns), NaN for none.
    """
    beside = min(len(panels), 2)
    below = -(-len(panels) // beside)
    labelled = 2 if len(panels) % beside else 1  # rows with labels below them
    height = below * (0.5 + 0.17 * len(layers)) + labelled * _upright(columns)
    with drawing(9.2, height) as figure:
        grid = figure.subplots(below, beside, sharex=True, sharey=True, squeeze=False)
        image = None
        for i, (axes, recipe) in enumerate(zip(grid.flat, panels, strict=False)):
            image = share_map(axes, panels[recipe], layers, columns)
            axes.set(title=recipe)
            if i >= len(panels) - beside:  # the lowest of its column
                axes.tick_params(labelbottom=True)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        share_scale(figure, image, grid)
        return svg(figure)
