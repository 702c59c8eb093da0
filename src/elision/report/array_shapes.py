"""A figure of cycles and energy over the shapes of arrays, the best of each marked."""

from collections.abc import Mapping, Sequence

from elision.accelerators.design.sizing import ArrayShape
from elision.report.style import drawing, plain_numbers, series_mark, svg

__all__ = ["array_shapes_svg"]

#: Of the axis' height, above the curves, for the legend.
_HEADROOM = 0.35


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
    from matplotlib.ticker import LogLocator, NullLocator

    with drawing(9.2, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        for index, (name, drawn) in enumerate(shapes.items()):
            mark = series_mark(index)
            cycles = [float(shape.cycles) for shape in drawn]
            energy = [shape.energy_pj * 1e-9 for shape in drawn]
            for axes, values in ((left, cycles), (right, energy)):
                best = values.index(min(values))
                axes.plot(values, marker=mark.marker, ms=3, lw=1.3, color=mark.colour)
                axes.plot(
                    best,
                    values[best],
                    marker="*",
                    ms=13,
                    ls="",
                    color=mark.colour,
                    label=f"{name}: best {ticks[best]}",
                )
        left.set(title="cycles, without stalls")
        right.set(title="energy in mJ, DRAM included")
        for axes in (left, right):
            axes.set(xlabel="rows × columns", yscale="log")
            low, high = axes.get_ylim()
            axes.set_ylim(low, high * (high / low) ** _HEADROOM)
            axes.set_xticks(range(len(ticks)), ticks, rotation=60, fontsize=8)
            axes.legend(fontsize=8, loc="upper center")
        plain_numbers(right.yaxis)
        right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        right.yaxis.set_minor_locator(NullLocator())
        figure.suptitle(title, fontsize=9)
        return svg(figure)
