"""A figure of cycles and energy over the shapes of an array, the best of each marked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elision.accelerators.sizing import ArrayShape
from elision.files import replacing

__all__ = ["array_shapes_figure", "save_array_shapes"]


def array_shapes_figure(shapes: Sequence[ArrayShape], title: str = "") -> Any:
    """Draw cycles and energy over the array's shape, at equal PE count.

    Args:
        shapes: what :func:`elision.accelerators.sizing.array_shapes` returns.
        title: above the figure.

    Returns:
        A matplotlib Figure of two panels.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not shapes:
        raise ValueError("array_shapes_figure: there is no shape to draw")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    labels = [f"{shape.rows}×{shape.columns}" for shape in shapes]
    columns = {
        "cycles, without stalls": [float(shape.cycles) for shape in shapes],
        "energy in mJ, DRAM included": [shape.energy_pj * 1e-9 for shape in shapes],
    }
    for panel, (name, values) in zip(panels, columns.items(), strict=True):
        best = values.index(min(values))
        panel.plot(values, marker="o", color="#4477aa")
        panel.plot(best, values[best], marker="o", markersize=11, color="#cc6677")
        panel.annotate(
            f"best: {labels[best]}",
            (best, values[best]),
            xytext=(0, 28),
            textcoords="offset points",
            ha="center",
            color="#cc6677",
        )
        panel.set_xticks(range(len(labels)), labels, rotation=60, fontsize=8)
        panel.set_xlabel("rows × columns")
        panel.set_ylabel(name)
        panel.set_yscale("log")
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure


def save_array_shapes(
    shapes: Sequence[ArrayShape], path: Path, title: str = ""
) -> None:
    """Write the figure of :func:`array_shapes_figure` as SVG; equal shapes, equal files.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib

    figure = array_shapes_figure(shapes, title)
    reproducible: Any = {"svg.fonttype": "none", "svg.hashsalt": "elision"}
    with replacing(path) as temporary, matplotlib.rc_context(reproducible):
        undated: Any = {"Date": None}
        figure.savefig(temporary, format="svg", metadata=undated)
