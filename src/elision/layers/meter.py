"""Training work that a recipe left out, from the densities that were realised.

The work of a product is its dense multiply-accumulates times the share that each
operand's transform leaves to do. Only work that the recipe leaves out counts as saved;
the zeros of a ReLU are reported as density. A product that a step does not compute (the
first layer's input gradient) counts neither as dense nor as done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import nn

from elision.layers.observation import Observation
from elision.layers.watch import watch
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

    Example:
        >>> work = Work(dense_macs=100, done_macs=30.0)
        >>> work.add(Work(dense_macs=100, done_macs=50.0))
        >>> work.ratio
        0.4
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
    """Observer that sums the work of products, by layer and product.

    Attributes:
        by_layer: the work of each (layer name, product).

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(4, 2), elision.methods.Swat(0.5, dense=()))
        >>> with elision.metered(model) as meter:
        ...     model(torch.ones(3, 4)).sum().backward()
        >>> meter.by_product()[elision.Product.FORWARD].ratio
        0.5
    """

    def __init__(self) -> None:
        self.by_layer: dict[tuple[str, Product], Work] = {}

    def __call__(self, observation: Observation) -> None:
        """Count one product (an observer for :func:`elision.layers.watch`)."""
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
    with watch(model, meter):
        yield meter
