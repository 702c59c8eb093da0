"""Training work that a recipe left out, from the densities that were realised.

The work of a product is its dense multiply-accumulates times the share that each
operand's transform leaves to do. Only work that the recipe leaves out counts as saved;
the zeros of a ReLU are reported as density. A product that a step does not compute (the
first layer's input gradient) counts neither as dense nor as done.

Products of a model's own calls (attention, ``matmul``, ``einsum``) are among them, each by
its name. :func:`metered` also counts the rest: functions outside of the model, layers of
other types. Dense multiply-accumulates are then half of what
:mod:`torch.utils.flop_counter` counts, layer by layer and in total, but for convolutions
in groups, whose weight gradient torch counts ``groups`` times too high, and for what it
has no formula for: attention on the CPU, which is in the total here, and kernels (LSTM on
the CPU, cuDNN's recurrent layers) that are counted apart from it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import nn

from elision.common.checks import numbers
from elision.common.notebook import html_table
from elision.layers.observation import Observation
from elision.layers.outside import OutsideProducts
from elision.layers.reach import elidable_layers
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


def _work(fields: dict[str, Any]) -> Work:
    """The work of plain values; the operands of both dictionaries must be the same."""
    found = Work(**fields)
    numbers("Work", {"done_macs": found.done_macs, **found.nonzeros})
    numbers("Work", found.values)
    if found.values.keys() != found.nonzeros.keys():
        raise ValueError("Work: nonzeros and values are of different operands")
    return found


class WorkMeter:
    """Observer that sums the work of products, by layer and product.

    Attributes:
        by_layer: the work of each (layer name, product).
        outside: multiply-accumulates outside the table, by (module name, operator); the
            forward and backward ones together.
        kernels: the same of kernels that torch's flop counter has no formula for.

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
        self.outside: dict[tuple[str, str], int] = {}
        self.kernels: dict[tuple[str, str], int] = {}

    def __call__(self, observation: Observation) -> None:
        """Count one product (an observer for :func:`elision.layers.watch`)."""
        product = observation.product
        values = {o: x.numel() for o, x in product.operands.items()}
        nonzeros = {o: density(x) * x.numel() for o, x in product.operands.items()}
        work = product.dense_macs * prod(observation.work.values())
        seen = self.by_layer.setdefault((product.name, product.kind), Work())
        seen.add(Work(product.dense_macs, work, nonzeros, values))

    def count_outside(self, module: str, operator: str, macs: int, known: bool) -> None:
        """Count a product that no elided layer computes.

        Args:
            module: name of the module that computes it; empty for the model itself.
            operator: name of the operator.
            macs: its multiply-accumulates.
            known: whether torch's flop counter has a formula for it.
        """
        counted = self.outside if known else self.kernels
        counted[module, operator] = counted.get((module, operator), 0) + macs

    def by_product(self) -> dict[Product, Work]:
        """Work of each of the three products over all layers of the table."""
        totals = {product: Work() for product in Product}
        for (_, product), work in self.by_layer.items():
            totals[product].add(work)
        return totals

    def total(self, *, kernels: bool = False) -> Work:
        """Work of everything seen; what is outside the table is done in full.

        Args:
            kernels: whether to add the kernels that torch's flop counter leaves out.
        """
        total = Work()
        for work in self.by_layer.values():
            total.add(work)
        for counted in (self.outside, self.kernels if kernels else {}):
            macs = sum(counted.values())
            total.add(Work(macs, macs))
        return total

    def merge(self, other: "WorkMeter") -> None:
        """Add what another meter saw."""
        for key, work in other.by_layer.items():
            self.by_layer.setdefault(key, Work()).add(work)
        for known, counted in ((True, other.outside), (False, other.kernels)):
            for (module, operator), macs in counted.items():
                self.count_outside(module, operator, macs, known)

    def to_json(self) -> list[dict[str, Any]]:
        """A list of plain rows, one a layer and product, then what is outside."""
        rows: list[dict[str, Any]] = [
            {"layer": layer, "product": product.value, **work.to_dict()}
            for (layer, product), work in self.by_layer.items()
        ]
        for where in (_OUTSIDE, _KERNELS):
            rows += [
                {"layer": module, where: operator, "dense_macs": macs}
                for (module, operator), macs in getattr(self, where).items()
            ]
        return rows

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> "WorkMeter":
        """The meter that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it did not write these rows.
        """
        meter = cls()
        for row in rows:
            numbers("Work", {"dense_macs": row["dense_macs"]})
            for where in (_OUTSIDE, _KERNELS):
                if where in row:
                    getattr(meter, where)[row["layer"], row[where]] = row["dense_macs"]
            if "product" not in row:
                continue
            fields = {k: v for k, v in row.items() if k not in ("layer", "product")}
            meter.by_layer[row["layer"], Product(row["product"])] = _work(fields)
        return meter

    def __repr__(self) -> str:
        """The total in one line."""
        total = self.total()
        text = (
            f"WorkMeter({total.dense_macs:,} dense MACs, {total.ratio:.1%} done, "
            f"{sum(self.outside.values()):,} outside the table"
        )
        if self.kernels:
            names = ", ".join(dict.fromkeys(name for _, name in self.kernels))
            more = sum(self.kernels.values())
            text += f"; not in the total, as in torch's counter: {more:,} of {names}"
        return text + ")"

    def _repr_html_(self) -> str:
        """The layers, and what is outside the table, as a table for notebooks."""
        rows = [
            (layer, product.value, f"{work.dense_macs:,}", f"{work.ratio:.1%}")
            for (layer, product), work in self.by_layer.items()
        ]
        for words, counted in (
            ("outside the table", self.outside),
            ("outside the table and torch's counter", self.kernels),
        ):
            rows += [
                (module, f"{operator}, {words}", f"{macs:,}", "100.0%")
                for (module, operator), macs in counted.items()
            ]
        header = ("layer", "product", "dense MACs", "done")
        return html_table(header, rows, repr(self))


#: Attributes of a meter, and keys of the rows of what they hold.
_OUTSIDE, _KERNELS = "outside", "kernels"


@contextmanager
def metered(model: nn.Module, meter: WorkMeter | None = None) -> Iterator[WorkMeter]:
    """Count the work of every product that a model computes in the context.

    Args:
        model: elided or not; not compiled.
        meter: the meter to go on with; None for a new one.

    Yields:
        The meter.

    Raises:
        ValueError: the model is compiled.

    Example:
        >>> import torch, elision
        >>> layer = torch.nn.Linear(4, 2)
        >>> with elision.metered(layer) as meter:
        ...     _ = layer(torch.ones(3, 4)) @ torch.ones(2, 5)
        >>> meter.total().dense_macs, meter.outside
        (54, {('', 'mm'): 30})
    """
    meter = WorkMeter() if meter is None else meter
    with ExitStack() as watching:
        if elidable_layers(model) or hasattr(model, "_orig_mod"):
            watching.enter_context(watch(model, meter))
        watching.enter_context(OutsideProducts(model, meter.count_outside))
        yield meter
