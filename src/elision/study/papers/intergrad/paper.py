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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product as grid
from pathlib import Path
from typing import Any

from elision.common.columns import as_text
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
from elision.study.papers.intergrad.layers import FullyConnectedRow, fully_connected
from elision.study.papers.intergrad.readings import (
    RANGE,
    ReadingBand,
    nearest_settings,
    reading_bands,
    readings,
    span,
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

    @property
    def span(self) -> str:
        """Lowest, median and highest in one cell."""
        return span(self)


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
        ranges, read_ranges = bands(steps), reading_bands(read)
        tables: dict[str, Rows] = {
            "fully_connected": [asdict(row) for row in layers],
            "steps": [asdict(row) | {"assumptions": row.assumptions} for row in steps],
            "bands": [asdict(row) for row in ranges],
            "readings": [asdict(row) for row in read],
            "reading_bands": [asdict(row) for row in read_ranges],
            "nearest_settings": [row.to_row() for row in nearest_settings(read)],
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            write_text(folder / f"{name}.csv", to_csv([_rounded(row) for row in rows]))
        short = {name: rows for name, rows in tables.items() if name not in LARGE}
        write_json(folder / "intergrad.json", short)
        write_text(folder / "fully-connected.svg", fully_connected_svg(layers))
        write_text(folder / "savings.svg", savings_svg(steps))
        return summaries(layers, steps, ranges, read_ranges)


#: Side, batch, drain rule and area rule of the training steps in a summary.
SHOWN = (128, 4, "by wiring", "equal PE count")


def summaries(
    layers: Sequence[FullyConnectedRow],
    steps: Sequence[StepRow],
    ranges: Sequence[BandRow],
    read: Sequence[ReadingBand],
) -> list[Table]:
    """The written tables in short, values as text."""
    gradients = ("batch", "drain", "cycles_ratio", "accesses_ratio")
    gradients += ("accesses_ratio_with_update",)
    reading = ("network", "quantity", "published", "weight_grad", "span")
    by_network: dict[str, dict[str, str]] = {}
    for row in steps:
        if (row.side, row.batch, row.drain, row.area) == SHOWN:
            cells = by_network.setdefault(row.network, {"network": row.network})
            saved = (row.cycles, row.sram, row.energy)
            cells[f"against {row.baseline}"] = ", ".join(f"{s:.0f}" for s in saved)
    return [
        Table(
            "Gradients of a 1024x1024 layer on 64x64 PEs, separate over interleaved; "
            "published: cycles 1.4x to 2.2x, accesses 1.9x",
            [as_text(row, gradients) for row in layers if row.side == 64],
        ),
        Table(
            "Training steps, 128x128 PEs, batch 4, equal PE count, drains by wiring; "
            "percent saved of cycles, SRAM words, energy",
            list(by_network.values()),
        ),
        Table(
            "Training steps against WS at equal area (fewer arrays), over sides, batches "
            "and drain rules; percent saved",
            [
                as_text(row, ("network", "counted", "published", "span"), RANGE)
                for row in ranges
                if row.area == "equal area, fewer arrays"
            ],
        ),
        Table(
            "The same, over larger arrays and batches too, by the form in which WS takes "
            "dW: Xt·G, Gt·X, or the faster",
            [
                as_text(row, (*reading, "reached"), RANGE)
                for row in read
                if (row.scope, row.input_grad) == ("step", "scatter")
            ],
        ),
    ]


#: Tables that are not repeated in the JSON file.
LARGE = ("steps", "readings")


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Percentages and ratios to four digits after the point."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
