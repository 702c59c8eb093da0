"""Multiplier use of single layers on accelerators, from plain numbers to an SVG string."""

import numpy as np

from elision.report.charts import share_map, share_scale
from elision.report.style import TITLE, drawing, further_lines, svg, wrapped

__all__ = ["utilisation_map"]

#: Inches: of the figure, of the layers' names and the scale beside the maps, of a row, and
#: of a line of a machine's name; and the size of that name in points.
_WIDTH, _NAMES, _ROW, _LINE, _SIZE = 9.2, 2.2, 0.17, 0.11, 6.5


def utilisation_map(
    layers: list[str], columns: list[tuple[str, str]], panels: dict[str, np.ndarray]
) -> str:
    """A map a recipe, two beside each other: layers down, machines and products across.

    Args:
        layers: names of the rows.
        columns: machine and product of the columns; those of a machine stand together.
        panels: recipe -> shares in [0, 1] of shape (layers, columns), NaN for none.
    """
    beside = min(len(panels), 2)
    below = -(-len(panels) // beside)
    column = (_WIDTH - _NAMES) / beside / len(columns)
    names = _named_groups(columns, column)
    lines = max(name.count("\n") for name in names) + 1
    titles = [
        wrapped(recipe, (_WIDTH - _NAMES / 2) / beside, TITLE) for recipe in panels
    ]
    height = below * (0.75 + _ROW * len(layers) + _LINE * lines + further_lines(titles))
    with drawing(_WIDTH, height) as figure:
        grid = figure.subplots(below, beside, sharey=True, squeeze=False)
        image = None
        for axes, title, values in zip(
            grid.flat, titles, panels.values(), strict=False
        ):
            image = share_map(axes, values, layers, names)
            axes.set(title=title)
            for left in range(1, len(columns)):
                if columns[left][0] != columns[left - 1][0]:
                    axes.axvline(left - 0.5, color="white", linewidth=2.5)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()
        share_scale(figure, image, grid)
        return svg(figure)


def _named_groups(columns: list[tuple[str, str]], inches: float) -> list[str]:
    """Names of columns: the product, and below the middle one of a machine its name.

    Args:
        columns: machine and product.
        inches: width of a column.
    """
    names = [product for _, product in columns]
    for machine in dict.fromkeys(machine for machine, _ in columns):
        own = [i for i, (name, _) in enumerate(columns) if name == machine]
        text = wrapped(machine, inches * len(own) * 0.95, _SIZE)
        names[own[(len(own) - 1) // 2]] += f"\n{text}"
    return names
