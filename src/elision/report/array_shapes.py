"""A figure of cycles and energy over the shapes of arrays, the best of each marked."""

from collections.abc import Mapping, Sequence

from elision.accelerators.design.sizing import ArrayShape
from elision.report.style import PALETTE, drawing, svg

__all__ = ["array_shapes_svg"]


def array_shapes_svg(
    shapes: Mapping[str, Sequence[ArrayShape]], title: str = ""
) -> str:
    """Draw cycles and energy over the array's shape, at equal PE count.

    Args:
        shapes: by the array's name, what
            :func:`elision.accelerators.design.sizing.array_shapes` returns; all arrays of one
            PE count.
        title: above the figure.

    Raises:
        ValueError: there is nothing to draw, or the PE counts differ.
    """
    labels = {
        tuple(f"{shape.rows}×{shape.columns}" for shape in drawn)
        for drawn in shapes.values()
    }
    if len(labels) != 1 or not all(labels):
        raise ValueError("array_shapes_svg: give shapes of one number of PEs")
    (ticks,) = labels
    with drawing(9.2, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        for colour, (name, drawn) in zip(PALETTE[1:], shapes.items(), strict=False):
            cycles = [float(shape.cycles) for shape in drawn]
            energy = [shape.energy_pj * 1e-9 for shape in drawn]
            for axes, values in ((left, cycles), (right, energy)):
                best = values.index(min(values))
                axes.plot(values, marker="o", ms=3, lw=1.3, color=colour)
                axes.plot(
                    best,
                    values[best],
                    marker="*",
                    ms=13,
                    ls="",
                    color=colour,
                    label=f"{name}: best {ticks[best]}",
                )
        left.set(title="cycles, without stalls")
        right.set(title="energy in mJ, DRAM included")
        for axes in (left, right):
            axes.set(xlabel="rows × columns", yscale="log")
            axes.set_xticks(range(len(ticks)), ticks, rotation=60, fontsize=8)
            axes.legend(fontsize=8)
        figure.suptitle(title, fontsize=9)
        return svg(figure)
