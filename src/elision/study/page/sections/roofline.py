"""Products under the roofline of this machine."""

from typing import Any

import numpy as np

from elision.report.style import INK, PRODUCT_COLOURS, drawing, svg
from elision.report.table import rows_as_html
from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section, findings_of

__all__ = ["roofline"]

_NOTE = (
    "Every product of a training step, computed densely by torch, under this machine's "
    "limits: float32 multiply-adds in registers, and the bandwidth of memory (STREAM's "
    "triad). Operations per byte count the layer's three tensors once. <b>Bound</b> is the "
    "lower of the two limits, or <b>latency</b> where the product would take less time "
    "than an empty call. Tensors that stay in a cache may pass the slanted limit, and products "
    "that leave out padding, which is counted, the level one."
)


def roofline(outcome: StudyOutcome) -> Section | None:
    """A figure and a table a recipe."""
    sheets = []
    for name, found in findings_of(outcome, "roofline").items():
        sheets += [_figure(name, found), rows_as_html(_rows(found))]
    if not sheets:
        return None
    title = "What bounds the dense products here"
    return Section(title, "measured here", _NOTE, tuple(sheets))


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "layer": row["layers"][0]
            + (f" and {len(row['layers']) - 1} more" if len(row["layers"]) > 1 else ""),
            "product": row["product"],
            "operations per byte": f"{row['intensity']:.1f}",
            "bound": row["bound"],
            "attainable, GFLOP/s": f"{row['attainable_gflops']:.0f}",
            "measured, GFLOP/s": f"{row['gflops']:.1f}",
            "of attainable": f"{100 * row['gflops'] / row['attainable_gflops']:.0f} %",
            "ms": f"{1e3 * row['seconds']:.3f}",
        }
        for row in found["products"]
    ]


def _figure(name: str, found: dict[str, Any]) -> str:
    ceilings, rows = found["ceilings"], found["products"]
    peak, bandwidth = ceilings["peak_gflops"], ceilings["bandwidth_gbs"]
    most = max(2 * ceilings["balance"], *(row["intensity"] for row in rows))
    least = min(ceilings["balance"] / 8, *(row["intensity"] for row in rows))
    line = np.geomspace(least, most, 200)
    with drawing(7.2, 3.4) as figure:
        axes = figure.subplots()
        axes.plot(line, np.minimum(peak, bandwidth * line), color=INK, lw=1)
        kinds = list(dict.fromkeys(row["product"] for row in rows))
        for kind in kinds:
            own = [row for row in rows if row["product"] == kind]
            axes.scatter(
                [row["intensity"] for row in own],
                [row["gflops"] for row in own],
                color=PRODUCT_COLOURS[kind],
                s=18,
                label=kind,
            )
        axes.set(
            title=f"{name}, {ceilings['threads']} thread(s)",
            xlabel="operations per byte",
            ylabel="GFLOP/s",
            xscale="log",
            yscale="log",
        )
        axes.legend(fontsize=8)
        return svg(figure)
