"""simulate: what recorded products cost on machines that need not exist."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elision.accelerators import Accelerator, Cost
from elision.accelerators.step import (
    PRODUCT_NAMES,
    job_cost,
    job_name,
    jobs,
    paired,
)
from elision.products import Geometry, LayerProduct
from elision.trace import synthetic_products
from elision.workloads import layer_shapes, make_model

__all__ = [
    "CostRow",
    "ProductRow",
    "count",
    "describe",
    "model_layers",
    "random_products",
    "simulate",
    "total",
]


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


def describe(products: Iterable[LayerProduct]) -> list[dict[str, str]]:
    """Recorded products as a table, values as text: densities and RCPs of each."""
    return [
        {
            "step": str(row.step),
            "layer": row.layer,
            "product": row.product,
            "dense MACs": f"{row.dense_macs:,}",
            "densities": ", ".join(
                f"{operand} {100 * density:.1f} %"
                for operand, density in row.densities.items()
            ),
            "non-zero products": f"{row.nonzero:,}",
            "RCPs": f"{100 * row.redundant / row.nonzero:.1f} %" if row.nonzero else "",
        }
        for row in count(products)
    ]


def random_products(
    model: str, input: int, batch: int, sparsity: float, seed: int = 0
) -> Iterator[LayerProduct]:
    """All three products of every layer of a network, with random sparse operands.

    Args:
        model: name of a network.
        input: height and width of its images, pixels.
        batch: images.
        sparsity: fraction of zeros of every operand, in [0, 1).
        seed: of the random stream.

    Raises:
        ValueError: an unknown network, an image too small for it, or a number out of
            range.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    return synthetic_products(model_layers(model, input, batch), sparsity, seed)


def model_layers(model: str, input: int, batch: int) -> list[tuple[str, Geometry]]:
    """Shapes of the layers of a network that this library knows by name.

    Args:
        model: name of a network.
        input: height and width of its images, pixels.
        batch: images.

    Raises:
        ValueError: an unknown network, an image too small for it, or a number out of
            range.
    """
    for name, value in (("input", input), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    network = make_model(model, image_size=input)
    return layer_shapes(network, (batch, 3, input, input))


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
