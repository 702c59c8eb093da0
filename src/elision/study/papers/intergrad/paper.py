"""Interleaved gradients: the published savings beside this model's.

Published (Unnikrishnan and Parhi, abstracts of ISCAS 2020, arXiv:2002.05529, and of
InterGrad, IEEE TCAS-I 70(5), 2023): fully connected layers take 1.4 to 2.2 times fewer
cycles and 1.9 times fewer memory accesses; at equal area and against a weight-stationary
array a training step saves, of energy, memory accesses and cycles, 12, 17 and 4 % for
Inception-v4, and 18, 26 and 27 % for DenseNet-264. Array and SRAM sizes, batch, technology
and the rules of counting are in no abstract, so the model is run over a grid of them, and
every row lists its assumptions. Nothing here is fitted to the published figures.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product as grid
from pathlib import Path
from typing import Any

from elision.common.files import to_csv, write_json, write_text
from elision.study.papers.base import (
    Figure,
    Paper,
    Progress,
    Report,
    Rows,
    Table,
    silent,
)
from elision.study.papers.intergrad.figures import fully_connected_svg, savings_svg
from elision.study.papers.intergrad.layers import fully_connected
from elision.study.papers.intergrad.readings import (
    nearest_settings,
    reading_bands,
    readings,
)
from elision.study.papers.intergrad.steps import (
    AREA_RULES,
    PUBLISHED_STEPS,
    StepRow,
    training_steps,
)

__all__ = ["BandRow", "InterleavedGradients", "bands", "summaries"]


@dataclass(frozen=True)
class BandRow:
    """A published saving beside the range that the model gives over the grid.

    Attributes:
        network: a name of :data:`PUBLISHED_STEPS`.
        quantity: ``"cycles"``, ``"memory"`` or ``"energy"``.
        counted: the column of :class:`StepRow` that is compared.
        area: a name of :data:`AREA_RULES`.
        published: percent, against WS at equal area.
        lowest: percent, over array sides, batches and drain rules.
        median: likewise.
        highest: likewise.

    Example:
        >>> BandRow("densenet-264", "cycles", "cycles", "equal area", 27, 10, 20, 30).median
        20
    """

    network: str
    quantity: str
    counted: str
    area: str
    published: float
    lowest: float
    median: float
    highest: float


_FIRST_ABSTRACT = "abstract, ISCAS 2020"

#: Columns of :class:`StepRow` that a published quantity may mean.
COUNTED = {
    "cycles": ("cycles", "cycles_with_stalls"),
    "memory": ("sram", "sram_with_update", "dram"),
    "energy": ("energy", "energy_on_chip", "energy_with_update"),
}


def bands(steps: Sequence[StepRow]) -> list[BandRow]:
    """Published savings beside the model's range over the grid, against WS."""
    rows = []
    for (name, published), area in grid(PUBLISHED_STEPS.items(), AREA_RULES):
        chosen = [
            row
            for row in steps
            if (row.network, row.baseline, row.area) == (name, "WS", area)
        ]
        for quantity, columns in COUNTED.items() if chosen else ():
            for column in columns:
                values = [getattr(row, column) for row in chosen]
                rows.append(
                    BandRow(
                        network=name,
                        quantity=quantity,
                        counted=column,
                        area=area,
                        published=getattr(published, quantity),
                        lowest=min(values),
                        median=statistics.median(values),
                        highest=max(values),
                    )
                )
    return rows


@dataclass(frozen=True)
class InterleavedGradients(Paper):
    """Interleaved gradients on systolic arrays against WS, OS and WS+OS.

    There is nothing to set: array sides, batches and rules are all run.

    Example:
        >>> [f.value for f in InterleavedGradients.published if "densenet" in f.quantity]
        ['18 %', '26 %', '27 %']
    """

    key = "intergrad"
    title = (
        "N. Unnikrishnan and K. Parhi, ISCAS 2020, arXiv:2002.05529, and InterGrad, IEEE "
        "TCAS-I 70(5), 2023"
    )
    published = (
        Figure("cycles of fully connected layers", "1.4x to 2.2x", _FIRST_ABSTRACT),
        Figure("memory accesses of fully connected layers", "1.9x", _FIRST_ABSTRACT),
        *(
            Figure(f"{quantity} saved, {network}", f"{percent:g} %", "abstract, 2023")
            for network, step in PUBLISHED_STEPS.items()
            for quantity, percent in asdict(step).items()
        ),
    )

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Write all tables as CSV, all but two in one JSON file, and two figures."""
        layers, steps, read = fully_connected(), training_steps(), readings()
        tables: dict[str, Rows] = {
            "fully_connected": [asdict(row) for row in layers],
            "steps": [asdict(row) | {"assumptions": row.assumptions} for row in steps],
            "bands": [asdict(row) for row in bands(steps)],
            "readings": [asdict(row) for row in read],
            "reading_bands": [asdict(row) for row in reading_bands(read)],
            "nearest_settings": [row.to_row() for row in nearest_settings(read)],
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            write_text(folder / f"{name}.csv", to_csv([_rounded(row) for row in rows]))
        short = {name: rows for name, rows in tables.items() if name not in LARGE}
        write_json(folder / "intergrad.json", short)
        write_text(folder / "fully-connected.svg", fully_connected_svg(layers))
        write_text(folder / "savings.svg", savings_svg(steps))
        return summaries(tables)


#: Side, batch, drain rule and area rule of the training steps in a summary.
SHOWN = (128, 4, "by wiring", "equal PE count")


def summaries(tables: Mapping[str, Rows]) -> list[Table]:
    """The written tables in short, values as text."""
    layers = [
        {
            "batch": str(row["batch"]),
            "drain": row["drain"],
            "cycles": f"{row['cycles_ratio']:.2f}x",
            "accesses": f"{row['accesses_ratio']:.2f}x",
            "accesses with update": f"{row['accesses_ratio_with_update']:.2f}x",
        }
        for row in tables["fully_connected"]
        if row["side"] == 64
    ]
    steps: dict[str, dict[str, str]] = {}
    for row in tables["steps"]:
        setting = (row["side"], row["batch"], row["drain"], row["area"])
        if setting == SHOWN:
            cells = steps.setdefault(row["network"], {"network": row["network"]})
            cells[f"against {row['baseline']}"] = ", ".join(
                f"{row[name]:.0f}" for name in ("cycles", "sram", "energy")
            )
    ranges = [
        {
            "network": row["network"],
            "saved": row["counted"],
            "published": f"{row['published']} %",
            "lowest, median, highest": _range(row),
        }
        for row in tables["bands"]
        if row["area"] == "equal area, fewer arrays"
    ]
    read = [
        {
            "network": row["network"],
            "saved": row["quantity"],
            "published": f"{row['published']} %",
            "dW of the baseline": row["weight_grad"],
            "lowest, median, highest": _range(row),
            "reached": "yes" if row["reached"] else "no",
        }
        for row in tables["reading_bands"]
        if (row["scope"], row["input_grad"]) == ("step", "scatter")
    ]
    return [
        Table(
            "Gradients of a 1024x1024 layer on 64x64 PEs, separate over interleaved; "
            "published: cycles 1.4x to 2.2x, accesses 1.9x",
            layers,
        ),
        Table(
            "Training steps, 128x128 PEs, batch 4, equal PE count, drains by wiring; "
            "percent saved of cycles, SRAM words, energy",
            list(steps.values()),
        ),
        Table(
            "Training steps against WS at equal area (fewer arrays), over sides, batches "
            "and drain rules; percent saved",
            ranges,
        ),
        Table(
            "The same, over larger arrays and batches too, by the form in which WS takes "
            "dW: Xt·G, Gt·X, or the faster",
            read,
        ),
    ]


def _range(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{row[name]:.0f}" for name in ("lowest", "median", "highest"))


#: Table that are not repeated in the JSON file.
LARGE = ("steps", "readings")


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Percentages and ratios to four digits after the point."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
