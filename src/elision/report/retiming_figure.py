"""A training step as a data-flow graph with its registers, before and after retiming."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from elision.report.style import INK, PRODUCT_COLOURS, TENSOR_COLOURS, drawing, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["retiming_svg"]

#: One value read: source, target, registers, kind (``training.pipeline.retiming.Edge``).
Edge = tuple[str, str, int, str]

_COLOURS = {
    "forward": PRODUCT_COLOURS["forward"],
    "input": PRODUCT_COLOURS["forward"],
    "output": PRODUCT_COLOURS["forward"],
    "backward": PRODUCT_COLOURS["input_grad"],
    "activation": TENSOR_COLOURS["input"],
    "weights": TENSOR_COLOURS["weight"],
    "gradient": PRODUCT_COLOURS["weight_grad"],
}
#: Heights of the rows, and how far the edges of a kind bend aside.
_ROWS = {"F": 3.0, "W": 2.0, "dX": 1.0, "dW": 0.0}
_BENDS = {"gradient": -0.45, "activation": 0.0, "weights": 0.0}
#: Distance between two layers, and of an arrow's end from its node.
_STEP, _GAP = 2.6, 16
#: Length of a unit upwards on the page over that of one to the right.
_ASPECT = 2.0


def retiming_svg(graphs: Mapping[str, Sequence[Edge]], stage_of: Sequence[int]) -> str:
    """One panel a graph, the layers from left to right, as an SVG element.

    An edge that holds registers is labelled with their number, such as ``2D``. A register
    that only keeps the weights from one update to the next is not drawn.

    Args:
        graphs: title -> edges.
        stage_of: stage of each layer; neighbouring stages are shaded in turns.
    """
    with drawing(4.6 * len(graphs), 3.6) as figure:
        panels = figure.subplots(1, len(graphs), squeeze=False)[0]
        for axes, (title, edges) in zip(panels, graphs.items(), strict=True):
            _panel(axes, edges, stage_of)
            axes.set_title(title)
        return svg(figure)


def _panel(axes: "Axes", edges: Sequence[Edge], stage_of: Sequence[int]) -> None:
    for layer, stage in enumerate(stage_of, 1):
        middle = layer * _STEP
        axes.axvspan(
            middle - _STEP / 2,
            middle + _STEP / 2,
            color="#f0f0f0" if stage % 2 == 0 else "#fafafa",
            zorder=0,
        )
        axes.text(middle, 3.6, f"stage {stage}", ha="center", fontsize=8, color=INK)
    nodes = dict.fromkeys(n for source, target, *_ in edges for n in (source, target))
    places = {node: _place(node, len(stage_of)) for node in nodes}
    for source, target, delay, kind in edges:
        if source != target:
            _arrow(axes, places[source], places[target], delay, kind)
    for node, (x, y) in places.items():
        axes.text(
            *(x, y, node),
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.3", "fc": "white", "ec": INK, "lw": 0.8},
            zorder=3,
        )
    axes.set_xlim(-0.7, (len(stage_of) + 1) * _STEP + 0.9)
    axes.set_ylim(-0.5, 3.9)
    axes.axis("off")


def _place(node: str, layers: int) -> tuple[float, float]:
    found = re.fullmatch(r"(F|W|dX|dW)(\d+)", node)
    if found:
        return int(found[2]) * _STEP, _ROWS[found[1]]
    last = (layers + 1) * _STEP
    return {"input": (0.0, 3.0), "loss": (last, 2.0), "output": (last, 3.0)}[node]


def _arrow(
    axes: "Axes",
    start: tuple[float, float],
    end: tuple[float, float],
    delay: int,
    kind: str,
) -> None:
    bend = _BENDS.get(kind, 0.0)
    colour = _COLOURS[kind]
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": colour,
            "lw": 1.1,
            "shrinkA": _GAP,
            "shrinkB": _GAP,
            "connectionstyle": f"arc3,rad={bend}",
        },
        zorder=1,
    )
    if delay:
        # The middle of the arc: a quadratic curve whose control point lies aside.
        dx, dy = end[0] - start[0], end[1] - start[1]
        # A third along, so that labels of edges that cross do not meet.
        along = 0.5 if bend or not dx else 0.35
        x = start[0] + along * dx + bend / 2 * dy * _ASPECT
        y = start[1] + along * dy - bend / 2 * dx / _ASPECT
        axes.text(
            *(x, y, f"{delay}D" if delay > 1 else "D"),
            ha="center",
            va="center",
            fontsize=7,
            color=colour,
            bbox={
                "boxstyle": "square,pad=0.15",
                "fc": "white",
                "ec": colour,
                "lw": 0.8,
            },
            zorder=2,
        )
