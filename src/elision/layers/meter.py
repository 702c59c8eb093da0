"""How much of the training work was left out, from the densities that were realised.

The work of a product is its dense multiply-accumulates times the share that each
operand's transform leaves to do. What counts is what the recipe leaves out: the zeros
that a ReLU makes for free are reported as density, not as work saved. A product that a
step does not compute (the first layer's input gradient) counts on neither side.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import nn

from elision.layers.observation import Observation
from elision.layers.observe import observe
from elision.operands import density
from elision.products import Product

__all__ = ["Work", "WorkMeter", "metered"]


@dataclass
class Work:
    """Work of one product, summed over layers or steps.

    Attributes:
        dense_macs: multiply-accumulates if nothing were left out.
        done_macs: those that the recipe left to do.
        nonzeros: per operand, the non-zero values read.
        values: per operand, all values read.
    """

    dense_macs: int = 0
    done_macs: float = 0.0
    nonzeros: dict[str, float] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Work done over dense work; 1 where there was none."""
        return self.done_macs / self.dense_macs if self.dense_macs else 1.0

    @property
    def densities(self) -> dict[str, float]:
        """Realised density of each operand, weighted by its size."""
        return {o: self.nonzeros[o] / n if n else 0.0 for o, n in self.values.items()}

    def add(self, other: "Work") -> None:
        """Add another product's work to this."""
        self.dense_macs += other.dense_macs
        self.done_macs += other.done_macs
        for operand, values in other.values.items():
            self.values[operand] = self.values.get(operand, 0) + values
            more = other.nonzeros[operand]
            self.nonzeros[operand] = self.nonzeros.get(operand, 0.0) + more

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return {
            "dense_macs": self.dense_macs,
            "done_macs": self.done_macs,
            "nonzeros": self.nonzeros,
            "values": self.values,
        }


class WorkMeter:
    """Adds up the work of every product it is shown, by layer and product."""

    def __init__(self) -> None:
        self.by_layer: dict[tuple[str, Product], Work] = {}

    def __call__(self, observation: Observation) -> None:
        """Count one product (an observer of :func:`elision.layers.observe`)."""
        product = observation.product
        values = {o: x.numel() for o, x in product.operands.items()}
        nonzeros = {o: density(x) * x.numel() for o, x in product.operands.items()}
        work = product.dense_macs * prod(observation.work.values())
        seen = self.by_layer.setdefault((product.name, product.kind), Work())
        seen.add(Work(product.dense_macs, work, nonzeros, values))

    def by_product(self) -> dict[Product, Work]:
        """Work of each of the three products over all layers."""
        totals = {product: Work() for product in Product}
        for (_, product), work in self.by_layer.items():
            totals[product].add(work)
        return totals

    def total(self) -> Work:
        """Work of everything seen."""
        total = Work()
        for work in self.by_layer.values():
            total.add(work)
        return total

    def merge(self, other: "WorkMeter") -> None:
        """Add what another meter saw."""
        for key, work in other.by_layer.items():
            self.by_layer.setdefault(key, Work()).add(work)

    def to_json(self) -> list[dict[str, Any]]:
        """A list of plain rows, one a layer and product."""
        return [
            {"layer": layer, "product": product.value, **work.to_dict()}
            for (layer, product), work in self.by_layer.items()
        ]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> "WorkMeter":
        """The meter that :meth:`to_json` wrote."""
        meter = cls()
        for row in rows:
            fields = {k: v for k, v in row.items() if k not in ("layer", "product")}
            meter.by_layer[row["layer"], Product(row["product"])] = Work(**fields)
        return meter


@contextmanager
def metered(model: nn.Module) -> Iterator[WorkMeter]:
    """Count the work of every product that a model computes in the context."""
    meter = WorkMeter()
    with observe(model, meter):
        yield meter
