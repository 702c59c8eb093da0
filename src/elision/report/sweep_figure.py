"""A figure of a sweep: cycles over what was swept, a panel a network, a line a machine."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from elision.accelerators.design.rows import ALL, SPARSITIES, Row
from elision.common.specs import Spec, parse
from elision.report.style import drawing, prefixed_numbers, series_mark, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sweep_svg"]

#: Parameters that set the number of multipliers, which the axis shows.
_SIZES = ("multipliers", "elements", "grid", "rows", "columns", "lanes")


def sweep_svg(rows: Sequence[Row]) -> str:
    """Draw the cycles of a training step from the rows of a sweep.

    The cycles stand over the sparsity where several were swept, else over the number of
    multipliers where machines differ in it; else each machine has a bar.

    Args:
        rows: of :func:`elision.accelerators.design.rows.read_rows`; the sums are drawn.

    Raises:
        ValueError: there is no sum among the rows.
    """
    totals = [row for row in rows if row["product"] == ALL]
    if not totals:
        raise ValueError("sweep_svg: give the rows of a sweep, with their sums")
    networks = list(dict.fromkeys(row["network"] for row in totals))
    beside = min(len(networks), 3)
    below = -(-len(networks) // beside)
    panel = _panel(totals)
    with drawing(9.2, 0.9 + 2.7 * below) as figure:
        grid = figure.subplots(below, beside, squeeze=False, sharey=panel is _bars)
        for axes, network in zip(grid.flat, networks, strict=False):
            panel(axes, totals, network)
            axes.set(title=network)
        for axes in list(grid.flat)[len(networks) :]:
            axes.set_axis_off()
        handles, labels = grid[0, 0].get_legend_handles_labels()
        if labels:
            figure.legend(
                handles, labels, loc="outside lower center", ncols=3, fontsize=7.5
            )
        figure.suptitle("Cycles of a training step, simulated", fontsize=9)
        return svg(figure)


def _panel(rows: Sequence[Row]) -> "Callable[[Axes, Sequence[Row], str], None]":
    """The drawing that shows what was swept."""
    if len({tuple(row[name] for name in SPARSITIES) for row in rows}) > 1:
        return _over_sparsity
    if len({row["multiplier_count"] for row in rows}) > 1:
        return _over_multipliers
    return _bars


def _over_sparsity(axes: "Axes", rows: Sequence[Row], network: str) -> None:
    """Lines over the mean share of zeros of the three operands; a trace has none."""
    drawn = [row for row in rows if row[SPARSITIES[0]]]

    def zeros(row: Row) -> float:
        return 100 * sum(float(row[name]) for name in SPARSITIES) / len(SPARSITIES)

    _lines(axes, drawn, network, zeros, lambda row: row["machine"])
    axes.set(xlabel="zeros, %", ylabel="cycles", yscale="log")


def _over_multipliers(axes: "Axes", rows: Sequence[Row], network: str) -> None:
    """Lines over the number of multipliers."""

    def kind(row: Row) -> str:
        named = parse(row["machine"]).named
        rest = {name: value for name, value in named.items() if name not in _SIZES}
        return str(Spec(row["accelerator"], (), rest))

    _lines(axes, rows, network, lambda row: int(row["multiplier_count"]), kind)
    axes.set(xlabel="multipliers", ylabel="cycles", yscale="log")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _lines(
    axes: "Axes",
    rows: Sequence[Row],
    network: str,
    place: Callable[[Row], float],
    series: Callable[[Row], str],
) -> None:
    """A line for each series, in the same colour and with the same mark in every panel."""
    for index, name in enumerate(dict.fromkeys(map(series, rows))):
        points = sorted(
            (place(row), int(row["cycles"]))
            for row in rows
            if row["network"] == network and series(row) == name
        )
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=series_mark(index).colour,
            marker=series_mark(index).marker,
            ms=4,
            label=name,
        )


def _bars(axes: "Axes", rows: Sequence[Row], network: str) -> None:
    """A bar for each machine."""
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    for row in rows:
        if row["network"] == network:
            place = machines.index(row["machine"])
            axes.barh(
                place, int(row["cycles"]), color=series_mark(0).colour, height=0.66
            )
    axes.set_yticks(range(len(machines)), machines)
    axes.set_ylim(len(machines) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="cycles")
    axes.locator_params(axis="x", nbins=4)
    prefixed_numbers(axes.xaxis)
