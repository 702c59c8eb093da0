"""Costs of products on several machines, as rows and as sums."""

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

    Attributes:
        accelerator: name of the machine.
        layer: name of the layer.
        product: one of :data:`~elision.accelerators.step.PRODUCT_NAMES`.
        step: training step of the recording.
        cost: of the product.

    Example:
        >>> CostRow("dense", "conv1", "forward", 0, Cost(cycles=9)).to_row()["cycles"]
        9
    """

    accelerator: str
    layer: str
    product: str
    step: int
    cost: Cost

    def to_row(self) -> dict[str, Any]:
        """One flat row for a table."""
        return {
            "accelerator": self.accelerator,
            "layer": self.layer,
            "product": self.product,
            "step": self.step,
        } | {name: getattr(self.cost, name) for name in _IN_TABLES}


#: Quantities of a cost in a table of products.
_IN_TABLES = (
    "cycles",
    "multiplies",
    "valid_multiplies",
    "redundant_multiplies",
    "utilisation",
    "energy_on_chip_pj",
    "energy_dram_pj",
    "stall_cycles",
)


def simulate(
    products: Iterable[LayerProduct], accelerators: Mapping[str, Accelerator]
) -> Iterator[CostRow]:
    """Cost of every product on every machine.

    The two gradients of a layer and step are one row where the machine interleaves them.

    Args:
        products: recorded or synthetic; value-blind machines need no operands.
        accelerators: by the name to report.

    Yields:
        Rows as they are counted, product by product, machine by machine.

    Raises:
        ValueError: a machine that reads values is given a product without operands.
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
    """Sums of costs: machine -> product (and ``"total"``) -> cost.

    Interleaved gradients are summed under a name of their own.

    Args:
        rows: of :func:`simulate`, of any number of products and machines.
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
