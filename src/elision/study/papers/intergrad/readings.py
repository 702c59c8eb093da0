"""Readings of the baseline that the published savings may have been measured against.

The abstracts compare whole networks with "weight-stationary" and do not say how that
baseline lowers its two gradients, nor whether the forward products count. These choices
move the savings more than the array does, so each combination of them is run over a grid
of arrays, batches and drain rules. Nothing is chosen from it: the tables give the figures
that each reading reaches, and the gap between the nearest single setting and all of them.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product as grid
from typing import Any

from elision.accelerators.base import Accelerator, Cost
from elision.accelerators.step import step_cost
from elision.accelerators.systolic.intergrad import estimated_pe_area_ratio
from elision.accelerators.systolic.lowering import INPUT_GRADS
from elision.accelerators.systolic.systolic import Systolic
from elision.common.columns import Column
from elision.products import Geometry, Product
from elision.study.papers.intergrad.steps import (
    DRAIN_RULES,
    PUBLISHED_STEPS,
    interleaving,
    savings,
)
from elision.workloads.shapes.networks import network

__all__ = [
    "SCOPES",
    "NearestSetting",
    "ReadingBand",
    "ReadingRow",
    "nearest_settings",
    "reading_bands",
    "readings",
]

#: Parts of a training step that are compared.
SCOPES = {"step": tuple(Product), "gradients": tuple(Product)[1:]}

#: The published quantities, and the saving that each is compared with.
QUANTITIES = {"cycles": "cycles", "memory": "sram", "energy": "energy"}

#: Forms of dW on a weight-stationary array: always one of two, or the faster.
WEIGHT_GRADS = ("faster", "XtG", "GtX")


@dataclass(frozen=True)
class ReadingRow:
    """Savings against one reading of the baseline, in percent, at equal area.

    Equal area is read as a chip of many arrays with proportionally fewer of the
    interleaving ones (``"equal area, fewer arrays"``).

    Attributes:
        network: a name of :data:`PUBLISHED_STEPS`.
        weight_grad: form of dW in the baseline, one of :data:`WEIGHT_GRADS`.
        input_grad: form of dX in the baseline, ``"scatter"`` or ``"gather"``.
        scope: a name of :data:`SCOPES`.
        side: rows and columns of the plain array.
        batch: images.
        drain: a name of :data:`DRAIN_RULES`.
        cycles: saving of cycles, without waiting for the DRAM.
        memory: saving of SRAM words, no optimiser on either side.
        energy: saving of energy, DRAM included, no optimiser.

    Example:
        >>> how = ("GtX", "scatter", "step", 32, 4, "explicit")
        >>> ReadingRow("densenet-264", *how, cycles=27, memory=26, energy=18).memory
        26
    """

    network: str
    weight_grad: str
    input_grad: str
    scope: str
    side: int
    batch: int
    drain: str
    cycles: float
    memory: float
    energy: float


def readings(
    networks: Sequence[str] = tuple(PUBLISHED_STEPS),
    sides: Sequence[int] = (32, 64, 128, 256),
    batches: Sequence[int] = (1, 4, 16, 64),
) -> list[ReadingRow]:
    """Every reading of the baseline over arrays, batches and drain rules."""
    ratio = estimated_pe_area_ratio()
    rows = []
    for name, batch in grid(networks, batches):
        layers = network(name, batch)
        for side in sides:
            baselines = dict(_baselines(side, layers))
            for drain, rule in DRAIN_RULES.items():
                ours = _by_scope(interleaving(side, rule), layers)
                for (form, lowering, scope), base in baselines.items():
                    saved = savings(base, ours[scope], slower=ratio)
                    rows.append(
                        ReadingRow(
                            name,
                            form,
                            lowering,
                            scope,
                            side,
                            batch,
                            drain,
                            **{q: saved[column] for q, column in QUANTITIES.items()},
                        )
                    )
    return rows


def _baselines(
    side: int, layers: list[tuple[str, Geometry]]
) -> Iterator[tuple[tuple[str, str, str], Cost]]:
    """(form of dW, lowering of dX, scope) and the cost of that baseline."""
    for form, lowering in grid(WEIGHT_GRADS, INPUT_GRADS):
        machine = Systolic(side, side, "ws", weight_grad=form, input_grad=lowering)
        for scope, cost in _by_scope(machine, layers).items():
            yield (form, lowering, scope), cost


def _by_scope(
    machine: Accelerator, layers: list[tuple[str, Geometry]]
) -> dict[str, Cost]:
    return {
        scope: step_cost(machine, layers, kinds=kinds)
        for scope, kinds in SCOPES.items()
    }


@dataclass(frozen=True)
class ReadingBand:
    """A published saving beside the range of one reading over the grid.

    Attributes:
        network, weight_grad, input_grad, scope: see :class:`ReadingRow`.
        quantity: ``"cycles"``, ``"memory"`` or ``"energy"``.
        published: percent.
        lowest, median, highest: percent, over arrays, batches and drain rules.
        reached: True if the published figure lies in the range.

    Example:
        >>> how = ("GtX", "gather", "step", 32, 4, "explicit")
        >>> row = ReadingRow("densenet-264", *how, cycles=27, memory=5, energy=1)
        >>> [band.reached for band in reading_bands([row])]
        [True, False, False]
    """

    network: str
    weight_grad: str
    input_grad: str
    scope: str
    quantity: str
    published: float
    lowest: float
    median: float
    highest: float
    reached: bool

    @property
    def span(self) -> str:
        """Lowest, median and highest in one cell."""
        return span(self)


#: Columns of a published saving beside the range of our own.
RANGE: Mapping[str, Column] = {
    "network": Column("network"),
    "quantity": Column("saved"),
    "counted": Column("saved"),
    "published": Column("published", "g", " %"),
    "weight_grad": Column("dW of the baseline"),
    "span": Column("lowest, median, highest"),
    "reached": Column("reached"),
}


def span(row: Any) -> str:
    """Lowest, median and highest of a row in one cell."""
    return ", ".join(f"{getattr(row, n):.0f}" for n in ("lowest", "median", "highest"))


def reading_bands(rows: Sequence[ReadingRow]) -> list[ReadingBand]:
    """The range of every reading, beside what was published."""
    found: dict[tuple[str, str, str, str], list[ReadingRow]] = {}
    for row in rows:
        key = (row.network, row.weight_grad, row.input_grad, row.scope)
        found.setdefault(key, []).append(row)
    bands = []
    for key, group in found.items():
        for quantity in QUANTITIES:
            values = [getattr(row, quantity) for row in group]
            published = getattr(PUBLISHED_STEPS[key[0]], quantity)
            bands.append(
                ReadingBand(
                    *key,
                    quantity,
                    published,
                    min(values),
                    statistics.median(values),
                    max(values),
                    reached=min(values) <= published <= max(values),
                )
            )
    return bands


@dataclass(frozen=True)
class NearestSetting:
    """One setting for both networks, and how far it stays from what was published.

    Attributes:
        weight_grad, input_grad, scope, side, batch, drain: see :class:`ReadingRow`.
        largest_gap: percentage points between a published saving and this setting's,
            the worst of the six.
        savings: percent, by network and quantity, such as ``"densenet-264 cycles"``.

    Example:
        >>> how = ("GtX", "gather", "step", 32, 4, "explicit")
        >>> NearestSetting(*how, 3.0, {"densenet-264 cycles": 24.0}).to_row()["side"]
        32
    """

    weight_grad: str
    input_grad: str
    scope: str
    side: int
    batch: int
    drain: str
    largest_gap: float
    savings: dict[str, float]

    def to_row(self) -> dict[str, Any]:
        """One flat row for a table."""
        row = asdict(self)
        return row | row.pop("savings")


def nearest_settings(
    rows: Sequence[ReadingRow], count: int = 5
) -> list[NearestSetting]:
    """The settings whose worst gap to the six published savings is least."""
    settings: dict[tuple[str, str, str, int, int, str], list[ReadingRow]] = {}
    for row in rows:
        key = (
            row.weight_grad,
            row.input_grad,
            row.scope,
            row.side,
            row.batch,
            row.drain,
        )
        settings.setdefault(key, []).append(row)
    found = []
    for key, group in settings.items():
        saved = {
            (row.network, quantity): getattr(row, quantity)
            for row in group
            for quantity in QUANTITIES
        }
        gap = max(
            abs(value - getattr(PUBLISHED_STEPS[name], quantity))
            for (name, quantity), value in saved.items()
        )
        named = {" ".join(names): value for names, value in saved.items()}
        found.append(NearestSetting(*key, gap, named))
    return sorted(found, key=lambda setting: setting.largest_gap)[:count]
