"""simulate: what recorded products cost on machines that need not exist."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elision.accelerators import Accelerator, Cost
from elision.accelerators.step import job_cost, jobs, paired
from elision.products import LayerProduct, Product

__all__ = ["GRADIENT_PAIR", "CostRow", "ProductRow", "count", "simulate", "total"]

#: Name of the two gradients of a layer where a machine runs them together.
GRADIENT_PAIR = f"{Product.INPUT_GRAD.value}+{Product.WEIGHT_GRAD.value}"


@dataclass(frozen=True)
class CostRow:
    """Cost of one product of one layer at one step on one machine.

    ``product`` is the value of a :class:`Product`, or :data:`GRADIENT_PAIR`.
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
        }


@dataclass(frozen=True)
class ProductRow:
    """What one recorded product consists of."""

    layer: str
    product: str
    step: int
    dense_macs: int
    nonzero: int
    valid: int
    densities: Mapping[str, float]
    sizes: Mapping[str, int]

    @property
    def redundant(self) -> int:
        """Redundant Cartesian products among the non-zero ones."""
        return self.nonzero - self.valid


def count(products: Iterable[LayerProduct]) -> Iterator[ProductRow]:
    """Densities and product counts of recorded products."""
    for product in products:
        counts = product.counts
        yield ProductRow(
            product.name,
            product.kind.value,
            product.step,
            product.dense_macs,
            counts.nonzero,
            counts.valid,
            product.densities,
            {name: int(mask.size) for name, mask in _named(product)},
        )


def _named(product: LayerProduct) -> Iterator[tuple[str, Any]]:
    yield from zip(product.kind.operands, product.masks, strict=True)


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
                    "+".join(product.kind.value for product in job),
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
    order = [*(product.value for product in Product), GRADIENT_PAIR, "total"]
    return {
        name: {key: machine[key] for key in order if key in machine}
        for name, machine in sums.items()
    }
