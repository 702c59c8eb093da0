"""Accuracy over what it cost: processor seconds, and energy with its range."""

from collections.abc import Mapping, Sequence

from elision.common.units import common_unit
from elision.report.style import LEGEND, Mark, drawing, plain_numbers, svg, wrapped

__all__ = ["energy_curves"]


def energy_curves(
    scores: Mapping[str, Sequence[float]],
    cpu_seconds: Mapping[str, Sequence[float]],
    watt_hours: Mapping[str, Sequence[tuple[float, float]]],
    marks: Mapping[str, Mark],
    *,
    title: str = "Test accuracy",
    percent: bool = True,
    estimated: bool = True,
) -> str:
    """A metric over the processor seconds and the energy that were spent on it.

    Args:
        scores: recipe -> metric after each epoch.
        cpu_seconds: recipe -> processor seconds until then.
        watt_hours: recipe -> lowest and highest energy until then, drawn as a bar.
        marks: colour and marker of each recipe.
        title: what the metric is.
        percent: it is a share in [0, 1]; else its axis is logarithmic.
        estimated: whether the energy is an estimate; its axis is then logarithmic, on
            which equal ranges have equal lengths.
    """
    ends = (high for run in watt_hours.values() for _, high in run)
    unit, scale = common_unit(ends, "Wh")
    with drawing(9.2, 3.3) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for name, values in scores.items():
            colour, marker = marks[name].colour, marks[name].marker
            left.plot(
                cpu_seconds[name],
                values,
                color=colour,
                marker=marker,
                ms=3.5,
                label=wrapped(name, LEGEND, 8),
            )
            lows, highs = zip(*watt_hours[name], strict=True)
            ends = [[end * scale for end in side] for side in (lows, highs)]
            right.hlines(values, *ends, color=colour, lw=1.6, alpha=0.45)
            for side in ends:
                right.plot(side, values, color=colour, lw=0.9, marker="|", ms=6)
        left.set(
            title=f"{title}, processor seconds measured", xlabel="processor seconds"
        )
        how = "estimated, from lowest to highest" if estimated else "by counters"
        right.set(title=f"Energy {how}", xlabel=f"{unit}, before PUE")
        if estimated:
            from matplotlib.ticker import LogLocator, NullLocator

            right.set_xscale("log")
            right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            right.xaxis.set_minor_locator(NullLocator())
            right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if percent:
            left.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
        else:
            left.set_yscale("log")
            plain_numbers(left.yaxis)
        figure.legend(loc="outside right upper", fontsize=8)
        return svg(figure)
