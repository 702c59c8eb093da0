"""A figure of predicted scaling: speed-up by ranks, a step's time line, cores given away."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from elision.report.style import INK, PALETTE, drawing, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "Step", "scaling_svg"]


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
    """

    ranks: int
    backward: float
    buckets: Sequence[tuple[float, float, float]]


def scaling_svg(
    curves: Sequence[Curve],
    pays_until: int,
    step: Step | None = None,
    by_cores: Sequence[tuple[int, float]] = (),
) -> str:
    """Draw the curves, and beside them what is given of the rest.

    Args:
        curves: at least one.
        pays_until: rank count that is marked.
        step: buckets of one step.
        by_cores: (cores given to communication, seconds of a step).

    Raises:
        ValueError: there is no curve.
    """
    if not curves:
        raise ValueError("scaling_svg: give at least one curve")
    panels = 1 + (step is not None) + bool(by_cores)
    with drawing(4.0 * panels + 0.6, 3.4) as figure:
        axes = list(figure.subplots(1, panels, squeeze=False)[0])
        _speedups(axes.pop(0), curves, pays_until)
        if step is not None:
            _buckets(axes.pop(0), step)
        if by_cores:
            _cores(axes.pop(0), by_cores)
        return svg(figure)


def _speedups(axes: "Axes", curves: Sequence[Curve], pays_until: int) -> None:
    counts = sorted({n for curve in curves for n in curve.ranks})
    axes.plot(counts, counts, color="#bbbbbb", linewidth=1, label="one for one")
    for colour, curve in zip(PALETTE[1:] * 4, curves, strict=False):
        style = {"linestyle": "--"} if curve.fitted else {"marker": "o", "ms": 3.5}
        axes.plot(curve.ranks, curve.speedups, color=colour, label=curve.name, **style)  # pyright: ignore[reportArgumentType]
    axes.axvline(pays_until, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(title="Speed-up, predicted", xlabel=f"ranks; pays until {pays_until}")
    axes.legend(fontsize=7.5)


def _buckets(axes: "Axes", step: Step) -> None:
    """A row for each bucket: it waits, then it travels."""
    scale = 1e3
    axes.axvline(step.backward * scale, color=INK, linewidth=0.8, linestyle=":")
    for row, (ready, start, end) in enumerate(step.buckets):
        for begin, stop, colour, label in (
            (ready, start, "#cccccc", "ready, waits"),
            (start, end, PALETTE[2], "on the link"),
        ):
            axes.barh(
                row,
                (stop - begin) * scale,
                left=begin * scale,
                color=colour,
                label=None if row else label,
            )
    axes.set(
        title=f"Buckets of a step, {step.ranks} ranks",
        xlabel="ms from the begin of the backward pass; dotted: its end",
        xlim=(0, None),
    )
    axes.set_yticks(
        range(len(step.buckets)), [f"{n}" for n in range(len(step.buckets))]
    )
    axes.set_ylabel("bucket")
    axes.invert_yaxis()
    axes.legend(fontsize=7.5)


def _cores(axes: "Axes", by_cores: Sequence[tuple[int, float]]) -> None:
    counts, seconds = zip(*by_cores, strict=True)
    axes.plot(counts, [s * 1e3 for s in seconds], color=PALETTE[1], marker="o", ms=3.5)
    axes.set(
        title="Step, ms",
        xlabel="cores given to communication",
        ylim=(0, None),
    )
    axes.xaxis.get_major_locator().set_params(integer=True)  # pyright: ignore[reportCallIssue]
