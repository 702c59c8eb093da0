"""A figure of pipeline schedules: who computes what when, and what is kept meanwhile."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from elision.common.units import counted_unit
from elision.report.style import INK, PRODUCT_COLOURS, SERIES, drawing, series_mark, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Box", "Panel", "pipeline_svg"]

#: Kinds of boxes: name in the legend and colour, that of the products computed.
KINDS = {
    "F": ("forward", PRODUCT_COLOURS["forward"]),
    "I": ("input gradient", PRODUCT_COLOURS["input_grad"]),
    "W": ("weight gradient", PRODUCT_COLOURS["weight_grad"]),
    "B": ("both gradients", PRODUCT_COLOURS["input_grad+weight_grad"]),
}

#: Points that a digit of a micro-batch's number needs, and inches of a row.
_DIGIT, _ROW = 4.2, 0.24


class Box(NamedTuple):
    """Something that a processor does.

    Attributes:
        row: number of the processor.
        start, end: in the unit of the panel.
        kind: key of :data:`KINDS`.
        text: number of the micro-batch.
        pale: whether to draw it paler: a later stage of the same processor.
    """

    row: int
    start: float
    end: float
    kind: str
    text: str
    pale: bool = False


class Panel(NamedTuple):
    """One schedule.

    Attributes:
        title: its name and figures.
        rows: number of processors.
        boxes: what they do.
        memory: bytes over time of each processor: (time, bytes from then on).
        unit: of time: ``"s"``, or cycles.
    """

    title: str
    rows: int
    boxes: Sequence[Box]
    memory: Sequence[Sequence[tuple[float, float]]]
    unit: str


def pipeline_svg(panels: Sequence[Panel]) -> str:
    """Draw schedules below one another, each with its memory beside it.

    All share one axis of time. A number is that of a micro-batch, left out where it does
    not fit. Memory is drawn if any panel has some.

    Args:
        panels: at least one.

    Raises:
        ValueError: there is none.
    """
    if not panels:
        raise ValueError("pipeline_svg: give at least one schedule")
    end = max(box.end for panel in panels for box in panel.boxes)
    with_memory = any(size for p in panels for own in p.memory for _, size in own)
    heights = [max(_ROW * panel.rows, 0.75) for panel in panels]
    width = 11.0 if with_memory else 9.2
    with drawing(width, 0.6 + sum(heights) + 0.55 * len(panels)) as figure:
        columns = {"width_ratios": (3.2, 1)} if with_memory else {}
        grid = figure.subplots(
            len(panels),
            2 if with_memory else 1,
            squeeze=False,
            gridspec_kw={"height_ratios": heights, **columns},
        )
        points = width * 72 * (0.68 if with_memory else 0.9) / end
        for axes, panel in zip(grid, panels, strict=True):
            _timeline(axes[0], panel, end, points)
            if with_memory:
                _memory(axes[1], panel, end)
        unit, scale = counted_unit([end], panels[0].unit)
        for axes in grid.flat:
            axes.xaxis.set_major_formatter(lambda time, _: f"{time * scale:.4g}")
        for axes in grid[-1]:
            axes.set_xlabel(f"time, {unit}")
        figure.legend(
            handles=_legend({box.kind for panel in panels for box in panel.boxes}),
            loc="outside lower center",
            ncols=4,
            fontsize=7.5,
        )
        return svg(figure)


def _timeline(axes: "Axes", panel: Panel, end: float, points: float) -> None:
    """Boxes of one schedule, the first processor on top."""
    for kind in KINDS:
        for pale in (False, True):
            own = [b for b in panel.boxes if (b.kind, b.pale) == (kind, pale)]
            for row in range(panel.rows):
                spans = [(b.start, b.end - b.start) for b in own if b.row == row]
                axes.broken_barh(
                    spans,
                    (row - 0.42, 0.84),
                    facecolors=KINDS[kind][1],
                    alpha=0.55 if pale else 1.0,
                    edgecolor="white",
                    linewidth=0.25,
                )
    for box in panel.boxes:
        if (box.end - box.start) * points > _DIGIT * len(box.text) + 1:
            axes.text(
                (box.start + box.end) / 2,
                box.row,
                box.text,
                ha="center",
                va="center",
                fontsize=6,
                color=INK if box.pale else "white",
            )
    axes.set(xlim=(0, end), ylim=(panel.rows - 0.4, -0.6), title=panel.title)
    axes.set_yticks(range(panel.rows), [f"processor {p}" for p in range(panel.rows)])
    axes.tick_params(axis="y", length=0, labelsize=7)
    axes.grid(visible=False)


def _memory(axes: "Axes", panel: Panel, end: float) -> None:
    """Bytes over time of each processor."""
    for row, series in enumerate(panel.memory):
        times = [time for time, _ in series] + [end]
        sizes = [size / 2**20 for _, size in series]
        axes.step(
            times,
            [*sizes, sizes[-1]],
            where="post",
            color=series_mark(row).colour,
            linewidth=1,
            linestyle="-" if row < len(SERIES) else "--",
        )
    axes.set(xlim=(0, end), ylim=(0, None))
    axes.set_title("kept, MiB, a line per processor", fontsize=7.5, fontweight="normal")


def _legend(kinds: set[str]) -> list[object]:
    from matplotlib.patches import Patch

    return [
        Patch(color=colour, label=name)
        for kind, (name, colour) in KINDS.items()
        if kind in kinds
    ]
