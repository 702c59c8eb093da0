"""Interleaved gradients: the published savings beside this model's.

Published (Unnikrishnan and Parhi, abstracts of ISCAS 2020, arXiv:2002.05529, and of
InterGrad, IEEE TCAS-I 70(5), 2023): fully connected layers take 1.4 to 2.2 times fewer
cycles and 1.9 times fewer memory accesses; at equal area and against a weight-stationary
array a training step saves, of energy, memory accesses and cycles, 12, 17 and 4 % for
Inception-v4, and 18, 26 and 27 % for DenseNet-264. Array and SRAM sizes, batch, technology
and the rules of counting are in no abstract, so the model is run over a grid of them, and
every row says what it assumes. Nothing here is fitted to the published figures.
"""

import csv
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product as grid
from pathlib import Path
from typing import Any

from elision.accelerators.base import Cost
from elision.files import replacing, write_json
from elision.products import LayerProduct, MatmulGeometry, Product
from elision.reproduce.intergrad_steps import (
    AREA_RULES,
    DRAIN_RULES,
    PUBLISHED_STEPS,
    StepRow,
    interleaving,
    sram_words,
    training_steps,
    ws_os,
)

__all__ = [
    "BandRow",
    "FullyConnectedRow",
    "bands",
    "fully_connected",
    "write",
]


@dataclass(frozen=True)
class FullyConnectedRow:
    """Both gradients of a fully connected layer: separate over interleaved.

    Attributes:
        side: rows and columns of the array.
        batch: rows of G.
        features: inputs and outputs of the layer.
        drain: a name of :data:`DRAIN_RULES`.
        separate_cycles: dX weight-stationary, then dW output-stationary.
        interleaved_cycles: both at once.
        cycles_ratio: the first over the second; published 1.4 to 2.2.
        accesses_ratio: SRAM words, gradients only.
        accesses_ratio_with_update: SRAM words with the optimiser's pass over the weights
            on the separate side, and the update in the array on the interleaved side;
            published 1.9, of which the abstract does not say what it counts.
    """

    side: int
    batch: int
    features: int
    drain: str
    separate_cycles: int
    interleaved_cycles: int
    cycles_ratio: float
    accesses_ratio: float
    accesses_ratio_with_update: float


def fully_connected(
    sides: Sequence[int] = (32, 64, 128, 256),
    batch_per_side: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
    features: int = 1024,
) -> list[FullyConnectedRow]:
    """Cycles and SRAM accesses of a square layer over array side, batch and drain rule.

    Batch 1 is always among the batches.
    """
    rows = []
    for side, name in grid(sides, DRAIN_RULES):
        rule = DRAIN_RULES[name]
        batches = {1} | {max(1, round(share * side)) for share in batch_per_side}
        for batch in sorted(batches):
            geometry = MatmulGeometry(batch, features, features)
            gradients = [
                LayerProduct(kind, geometry)
                for kind in (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
            ]
            plain = ws_os(side, rule)
            apart = sum((plain.cost(p) for p in gradients), Cost())
            together, updated = (
                interleaving(side, rule, update=update).cost_pair(*gradients)
                for update in (False, True)
            )
            with_pass = apart + plain.cost_update(geometry)
            rows.append(
                FullyConnectedRow(
                    side=side,
                    batch=batch,
                    features=features,
                    drain=name,
                    separate_cycles=apart.cycles,
                    interleaved_cycles=together.cycles,
                    cycles_ratio=apart.cycles / together.cycles,
                    accesses_ratio=sram_words(apart) / sram_words(together),
                    accesses_ratio_with_update=sram_words(with_pass)
                    / sram_words(updated),
                )
            )
    return rows


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
    """

    network: str
    quantity: str
    counted: str
    area: str
    published: float
    lowest: float
    median: float
    highest: float


#: What a published quantity may mean: the columns of :class:`StepRow` to compare it with.
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


def write(folder: Path) -> None:
    """Run everything and write the tables ``fully_connected``, ``steps`` and ``bands``.

    Each as CSV; the first and the last also in ``intergrad.json``.

    Raises:
        OSError: the folder cannot be written to.
    """
    steps = training_steps()
    tables = {
        "fully_connected": [asdict(row) for row in fully_connected()],
        "steps": [asdict(row) | {"assumptions": row.assumptions} for row in steps],
        "bands": [asdict(row) for row in bands(steps)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        with (
            replacing(folder / f"{name}.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(_rounded(row) for row in rows)
    small = {name: tables[name] for name in ("fully_connected", "bands")}
    write_json(folder / "intergrad.json", small)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Percentages and ratios to four digits after the point."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
