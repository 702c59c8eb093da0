"""Costs of a recipe's recorded products, whole, as its folder of a run keeps them.

``tables/costs.csv`` has what people look at; a report that is made again draws from more.
"""

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from elision.accelerators import Cost
from elision.accelerators.simulate import CostRow
from elision.common.files import taken_apart, write_text

__all__ = ["COSTS", "keep_costs", "kept_costs"]

#: File of a recipe's folder.
COSTS = "costs.json"

#: Layout of the file; raised when a later version could not read an older one.
_FORMAT = 1

#: Parts of a cost that most rows of a machine share.
_SHARED = ("prices_pj", "area_mm2", "notes", "machine")


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
    found = {
        "format": _FORMAT,
        "machines": [json.loads(text) for text in machines],
        "rows": kept,
    }
    # Keys stay in their order, by which energies are summed.
    write_text(folder / COSTS, json.dumps(found, allow_nan=False) + "\n")


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
        if found["format"] != _FORMAT:
            raise ValueError(
                f"of format {found['format']!r}; this version reads {_FORMAT}"
            )
        return [_row(row, found["machines"]) for row in found["rows"]]


def _row(row: dict[str, Any], machines: list[dict[str, Any]]) -> CostRow:
    shared = machines[row.pop("machine")]
    cost = Cost(**row.pop("cost"), **shared | {"notes": tuple(shared["notes"])})
    return CostRow(**row, cost=cost)
