"""Costs of a recipe's recorded products, whole, as its folder of a run keeps them.

``tables/costs.csv`` has what people look at; a report that is made again draws from more.
"""

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from elision.accelerators import Cost
from elision.accelerators.simulate import CostRow
from elision.common.files import taken_apart, write_text
from elision.common.versioned import SCHEMA, VERSION_KEY, versioned

__all__ = ["COSTS", "KeptCosts", "keep_costs", "kept_costs"]

#: File of a recipe's folder.
COSTS = "costs.json"


class Machine(TypedDict):
    """What the costs of a machine have in common.

    Attributes:
        prices_pj: energy of one of each of the accesses and operations.
        area_mm2: area of the machine; null where the energy table has none.
        notes: sentences that belong beside the figures.
        machine: the machine with its parameters, as text.
    """

    prices_pj: dict[str, float]
    area_mm2: float | None
    notes: list[str]
    machine: str


class Counts(TypedDict):
    """Counts of one product; those that are 0 or empty are left out.

    Attributes:
        cycles: clock cycles.
        multiplies: products issued to the multipliers.
        valid_multiplies: products that belong to an output of the layer.
        redundant_multiplies: non-zero products that belong to no output.
        multiplier_slots: multipliers x cycles.
        accesses: 32-bit words, by memory and direction.
        operations: other counted actions.
        details: further figures of a model, such as stall cycles.
    """

    cycles: NotRequired[int]
    multiplies: NotRequired[int]
    valid_multiplies: NotRequired[int]
    redundant_multiplies: NotRequired[int]
    multiplier_slots: NotRequired[int]
    accesses: NotRequired[dict[str, int]]
    operations: NotRequired[dict[str, int]]
    details: NotRequired[dict[str, float]]


class KeptCost(TypedDict):
    """Cost of one product of one layer at one step on one machine.

    Attributes:
        accelerator: name of the machine.
        layer: name of the layer.
        product: forward, input_grad or weight_grad.
        step: training step of the recording.
        machine: place of the machine among the file's machines.
        cost: counts.
    """

    accelerator: str
    layer: str
    product: str
    step: int
    machine: int
    cost: Counts


class KeptCosts(TypedDict):
    """Costs of a recipe's recorded products.

    Attributes:
        machines: what rows have in common.
        rows: of every product, step and machine.
    """

    machines: list[Machine]
    rows: list[KeptCost]


#: Parts of a cost that most rows of a machine share.
_SHARED = tuple(Machine.__annotations__)


def keep_costs(folder: Path, rows: Iterable[CostRow]) -> None:
    """Write the costs of a recipe.

    Args:
        folder: of the recipe.
        rows: of every product and machine.
    """
    machines: dict[str, int] = {}
    kept = []
    for row in rows:
        values = {f.name: getattr(row.cost, f.name) for f in fields(Cost)}
        shared = json.dumps({name: values.pop(name) for name in _SHARED})
        kept.append(
            {
                "accelerator": row.accelerator,
                "layer": row.layer,
                "product": row.product,
                "step": row.step,
                "machine": machines.setdefault(shared, len(machines)),
                "cost": {name: value for name, value in values.items() if value},
            }
        )
    found = {"machines": [json.loads(text) for text in machines], "rows": kept}
    # Keys stay in their order, by which energies are summed.
    text = json.dumps(versioned(found), allow_nan=False)
    write_text(folder / COSTS, text + "\n")


def kept_costs(folder: Path) -> list[CostRow]:
    """The costs that a recipe's folder keeps; none, if it keeps none.

    Raises:
        ValueError: the file is damaged, or of another version.
    """
    path = folder / COSTS
    if not path.is_file():
        return []
    with taken_apart(path, "no costs of a recipe"):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found[VERSION_KEY] != SCHEMA:
            raise ValueError(
                f"of schema {found[VERSION_KEY]!r}; this version reads {SCHEMA}"
            )
        return [_row(row, found["machines"]) for row in found["rows"]]


def _row(row: dict[str, Any], machines: list[dict[str, Any]]) -> CostRow:
    shared = machines[row.pop("machine")]
    cost = Cost(**row.pop("cost"), **shared | {"notes": tuple(shared["notes"])})
    return CostRow(**row, cost=cost)
