"""Figures of scaling: speed-up by ranks, time lines of steps, cores given away."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from elision.report.style import (
    INK,
    PRODUCT_COLOURS,
    TRACK_COLOURS,
    drawing,
    series_mark,
    svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "Step", "scaling_svg", "steps_svg"]

_AXIS = "ms from the begin of the backward pass; dotted: its end"


class Curve(NamedTuple):
    """Speed-up by ranks.

    Attributes:
        name: in the legend.
        ranks: counts.
        speedups: one for each.
        fitted: whether to draw it as a dashed line without points.
    """

    name: str
    ranks: Sequence[int]
    speedups: Sequence[float]
    fitted: bool = False


class Step(NamedTuple):
    """Buckets of a step, in seconds from the begin of the backward pass.

    Attributes:
        ranks: of the step.
        backward: seconds of the backward pass.
        buckets: (ready, start, end) of each.
        title: of the panel; "": by the ranks.
        layers: (begin, end) of each layer's gradient products.
    """

    ranks: int
    backward: float
    buckets: Sequence[tuple[float, float, float]]
    title: str = ""
    layers: Sequence[tuple[float, float]] = ()


def steps_svg(steps: Sequence[Step]) -> str:
    """Draw steps below one another on one axis of time.

    Args:
        steps: at least one.

    Raises:
        ValueError: there is none.
    """
    if not steps:
        raise ValueError("steps_svg: give at least one step")
    rows = [len(step.buckets) + bool(step.layers) for step in steps]
    heights = [0.3 * count + 0.55 for count in rows]
    with drawing(7.6, sum(heights) + 0.5) as figure:
        panels = figure.subplots(
            len(steps),
            1,
            sharex=True,
            squeeze=False,
            gridspec_kw={"height_ratios": heights},
        )
        for axes, step in zip(panels[:, 0], steps, strict=True):
            _buckets(axes, step)
            axes.set_xlabel("")
            legend = axes.get_legend()
            if legend is not None:
                legend.remove()
        drawn = {}
        for axes in panels[:, 0]:
            handles, labels = axes.get_legend_handles_labels()
            drawn |= dict(zip(labels, handles, strict=True))
        panels[-1, 0].set_xlabel(_AXIS)
        figure.legend(
            drawn.values(), drawn, loc="outside lower center", ncols=4, fontsize=7.5
        )
        return svg(figure)


def scaling_svg(
    curves: Sequence[Curve],
    pays_until: int,
    step: Step | None = None,
    by_cores: Sequence[tuple[int, float]] = (),
    serial: Sequence[tuple[int, float]] = (),
) -> str:
    """Draw the curves, and beside them what is given of the rest.

    Args:
        curves: at least one.
        pays_until: rank count that is marked.
        step: buckets of one step.
        by_cores: (cores given to communication, seconds of a step).
        serial: (ranks, serial share by Karp and Flatt).

    Raises:
        ValueError: there is no curve.
    """
    if not curves:
        raise ValueError("scaling_svg: give at least one curve")
    panels = 1 + (step is not None) + bool(by_cores) + bool(serial)
    columns = 2 if panels == 4 else panels  # four are a square, fewer a row
    rows = -(-panels // columns)
    with drawing(4.0 * columns + 0.6, 3.4 * rows) as figure:
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        _speedups(axes.pop(0), curves, pays_until)
        if step is not None:
            _buckets(axes.pop(0), step)
        if serial:
            _serial(axes.pop(0), serial)
        if by_cores:
            _cores(axes.pop(0), by_cores)
        return svg(figure)


def _speedups(axes: "Axes", curves: Sequence[Curve], pays_until: int) -> None:
    counts = sorted({n for curve in curves for n in curve.ranks})
    axes.plot(counts, counts, color="#bbbbbb", linewidth=1, label="one for one")
    for index, curve in enumerate(curves):
        axes.plot(
            curve.ranks,
            curve.speedups,
            color=series_mark(index).colour,
            label=curve.name,
            linestyle="--" if curve.fitted else "-",
            marker="" if curve.fitted else "o",
            ms=3.5,
        )
    axes.axvline(pays_until, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(title="Speed-up, predicted", xlabel=f"ranks; pays until {pays_until}")
    axes.legend(fontsize=7.5)


def _buckets(axes: "Axes", step: Step) -> None:
    """A row of layers, then one for each bucket: it waits, then it travels."""
    scale = 1e3
    axes.axvline(step.backward * scale, color=INK, linewidth=0.8, linestyle=":")
    names = ["layers"] if step.layers else []
    for number, (begin, stop) in enumerate(step.layers):
        axes.barh(
            0,
            (stop - begin) * scale,
            left=begin * scale,
            color=PRODUCT_COLOURS["input_grad+weight_grad"],
            edgecolor="white",
            linewidth=0.4,
            label=None if number else "gradients of a layer",
        )
    for number, (ready, start, end) in enumerate(step.buckets):
        for begin, stop, colour, label in (
            (ready, start, "#cccccc", "ready, waits"),
            (start, end, TRACK_COLOURS["link"], "on the link"),
        ):
            axes.barh(
                len(names),
                (stop - begin) * scale,
                left=begin * scale,
                color=colour,
                label=None if number else label,
            )
        names.append(f"bucket {number}" if step.layers else f"{number}")
    title = step.title or f"Buckets of a step, {step.ranks} ranks"
    axes.set(title=title, xlabel=_AXIS, xlim=(0, None))
    axes.set_yticks(range(len(names)), names)
    if not step.layers:
        axes.set_ylabel("bucket")
    axes.invert_yaxis()
    axes.legend(fontsize=7.5)


def _serial(axes: "Axes", serial: Sequence[tuple[int, float]]) -> None:
    counts, shares = zip(*serial, strict=True)
    colour = series_mark(0).colour
    axes.plot(counts, [s * 100 for s in shares], color=colour, marker="o", ms=3.5)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(
        title="Serial share by Karp and Flatt, %",
        xlabel="ranks; where it rises, overheads grow",
        ylim=(0, None),
    )


def _cores(axes: "Axes", by_cores: Sequence[tuple[int, float]]) -> None:
    counts, seconds = zip(*by_cores, strict=True)
    best = counts[seconds.index(min(seconds))]
    colour = series_mark(0).colour
    axes.plot(counts, [s * 1e3 for s in seconds], color=colour, marker="o", ms=3.5)
    axes.axvline(best, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yscale("log")  # giving away the last cores costs many times the least step
    for format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        format(lambda value, _: f"{value:g}")
    axes.set(
        title="Step, ms",
        xlabel=f"cores given to communication; fastest with {best}",
    )
    axes.xaxis.get_major_locator().set_params(integer=True)  # pyright: ignore[reportCallIssue]
