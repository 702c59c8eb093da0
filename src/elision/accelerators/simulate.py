"""What products cost on machines that need not exist."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elision.accelerators.base import Accelerator, Cost
from elision.accelerators.step import (
    PRODUCT_NAMES,
    job_cost,
    job_name,
    jobs,
    paired,
)
from elision.products import LayerProduct
from elision.products import ProductRow as ProductRow
from elision.products import count as count
from elision.products import describe as describe

__all__ = ["CostRow", "ProductRow", "count", "describe", "simulate", "total"]


@dataclass(frozen=True)
class CostRow:
    """Cost of one product of one layer at one step on one machine.

    ``product`` is one of :data:`~elision.accelerators.step.PRODUCT_NAMES`.
    """

    accelerator: str
    layer: str
    product: str
    step: int
    cost: Cost

    def to_row(self) -> dict[str, Any]:
        """One flat row for a table."""
        flat = self.cost.to_dict()
        keep = (
            "cycles",
            "multiplies",
            "valid_multiplies",
            "redundant_multiplies",
            "utilisation",
            "energy_pj",
        )
        return {
            "accelerator": self.accelerator,
            "layer": self.layer,
            "product": self.product,
            "step": self.step,
            **{name: flat[name] for name in keep},
            "stall_cycles": self.cost.stall_cycles,
        }


def simulate(
    products: Iterable[LayerProduct], accelerators: Mapping[str, Accelerator]
) -> Iterator[CostRow]:
    """Cost of every product on every machine.

    The two gradients of a layer and step are one row where the machine interleaves them.

    Args:
        products: recorded or synthetic; value-blind machines need no operands.
        accelerators: by the name to report.
    """
    for together in paired(products):
        for name, accelerator in accelerators.items():
            for job in jobs(accelerator, together):
                yield CostRow(
                    name,
                    job[0].name,
                    job_name(job),
                    job[0].step,
                    job_cost(accelerator, job),
                )


def total(rows: Iterable[CostRow]) -> dict[str, dict[str, Cost]]:
    """Costs added up: machine -> product (and ``"total"``) -> cost.

    Gradients that a machine ran together stand apart from those that it ran singly.
    """
    sums: dict[str, dict[str, Cost]] = {}
    for row in rows:
        machine = sums.setdefault(row.accelerator, {})
        for key in (row.product, "total"):
            machine[key] = machine[key] + row.cost if key in machine else row.cost
    order = (*PRODUCT_NAMES, "total")
    return {
        name: {key: machine[key] for key in order if key in machine}
        for name, machine in sums.items()
    }
