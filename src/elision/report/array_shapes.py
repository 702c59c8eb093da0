"""A figure of cycles and energy over the shapes of an array, the best of each marked."""

from collections.abc import Sequence

from elision.accelerators.sizing import ArrayShape
from elision.report.style import PALETTE, drawing, svg

__all__ = ["array_shapes_svg"]

BEST = "#D55E00"


def array_shapes_svg(shapes: Sequence[ArrayShape], title: str = "") -> str:
    """Draw cycles and energy over the array's shape, at equal PE count.

    Args:
        shapes: what :func:`elision.accelerators.sizing.array_shapes` returns.
        title: above the figure.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not shapes:
        raise ValueError("array_shapes_svg: there is no shape to draw")
    labels = [f"{shape.rows}×{shape.columns}" for shape in shapes]
    panels = {
        "cycles, without stalls": [float(shape.cycles) for shape in shapes],
        "energy in mJ, DRAM included": [shape.energy_pj * 1e-9 for shape in shapes],
    }
    with drawing(9.2, 3.4) as figure:
        row = figure.subplots(1, 2)
        for axes, (name, values) in zip(row, panels.items(), strict=True):
            best = values.index(min(values))
            axes.plot(values, marker="o", ms=4, color=PALETTE[1])
            axes.plot(best, values[best], marker="o", ms=9, color=BEST)
            axes.set(title=f"{name}; best: {labels[best]}", xlabel="rows × columns")
            axes.set_xticks(range(len(labels)), labels, rotation=60, fontsize=8)
            axes.set_yscale("log")
        figure.suptitle(title, fontsize=9)
        return svg(figure)
