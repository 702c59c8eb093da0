"""A whole training step on one machine: every product of every layer, and what pairs.

The forward product, the weight gradient and, but for the first layer, the input
gradient of each layer. A machine that can run the two gradients of a layer together
(:class:`~elision.accelerators.systolic.intergrad.InterGrad`) is given them as a pair.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Protocol, TypeGuard, runtime_checkable

from elision.accelerators.base import Accelerator, Cost
from elision.products import Geometry, LayerProduct, Product

__all__ = [
    "GRADIENT_PAIR",
    "PRODUCT_NAMES",
    "blind_products",
    "check_layers",
    "job_cost",
    "job_name",
    "jobs",
    "paired",
    "products_cost",
    "step_cost",
]

#: Name of the two gradients of a layer where a machine runs them together.
GRADIENT_PAIR = f"{Product.INPUT_GRAD.value}+{Product.WEIGHT_GRAD.value}"

#: Names of what a machine runs, see :func:`job_name`.
PRODUCT_NAMES = (*(product.value for product in Product), GRADIENT_PAIR)

Layers = Iterable[tuple[str, Geometry]]


@runtime_checkable
class Interleaving(Protocol):
    """A machine that runs the two gradients of a layer together."""

    def cost_pair(self, input_grad: LayerProduct, weight_grad: LayerProduct) -> Cost:
        """Cost of both gradients of one layer."""
        ...


def check_layers(layers: Iterable[Any]) -> list[tuple[str, Geometry]]:
    """The layers as a list; every row is a (name, geometry).

    Raises:
        ValueError: a row is something else (says which row), or there is no row.
    """
    checked = []
    for number, row in enumerate(layers, start=1):
        if not _is_layer(row):
            raise ValueError(
                f"layer list, row {number}: expected (name, geometry), got {row!r}"
            )
        checked.append((row[0], row[1]))
    if not checked:
        raise ValueError("layer list: it has no rows")
    return checked


def _is_layer(row: Any) -> TypeGuard[tuple[str, Geometry]]:
    if not isinstance(row, (tuple, list)) or len(row) != 2:
        return False
    return isinstance(row[0], str) and isinstance(row[1], Geometry)


def blind_products(
    layers: Layers, first_input_grad: bool = False
) -> list[LayerProduct]:
    """The products of one training step, without values.

    Args:
        layers: (name, geometry) of each layer, the first one first.
        first_input_grad: whether the first layer computes a gradient of its input too.
    """
    products = []
    for index, (name, geometry) in enumerate(check_layers(layers)):
        for kind in Product:
            if kind is Product.INPUT_GRAD and index == 0 and not first_input_grad:
                continue
            products.append(LayerProduct(kind, geometry, name=name))
    return products


def paired(products: Iterable[LayerProduct]) -> Iterator[tuple[LayerProduct, ...]]:
    """Products, the two gradients of a layer and step together, input gradient first.

    A pair takes the place of the gradient that comes second. Gradients that find no
    partner come last.
    """
    waiting: dict[tuple[Any, ...], LayerProduct] = {}
    for product in products:
        if product.kind is Product.FORWARD:
            yield (product,)
            continue
        key = (product.name, product.step, product.geometry)
        partner = waiting.pop(key, None)
        if partner is None or partner.kind is product.kind:
            waiting[key] = product
            if partner is not None:
                yield (partner,)
        elif product.kind is Product.WEIGHT_GRAD:
            yield partner, product
        else:
            yield product, partner
    for product in waiting.values():
        yield (product,)


def jobs(
    machine: Accelerator, products: Iterable[LayerProduct]
) -> Iterator[tuple[LayerProduct, ...]]:
    """What the machine runs one after the other: single products, and pairs it can run."""
    if isinstance(machine, Interleaving):
        return paired(products)
    return ((product,) for product in products)


def job_name(job: tuple[LayerProduct, ...]) -> str:
    """Name of the product, or of the pair, that a machine runs."""
    return "+".join(product.kind.value for product in job)


def job_cost(machine: Accelerator, job: tuple[LayerProduct, ...]) -> Cost:
    """Cost of what :func:`jobs` gives: a product, or a pair of gradients."""
    if len(job) == 2 and isinstance(machine, Interleaving):
        return machine.cost_pair(*job)
    return machine.cost(job[0])


def products_cost(machine: Accelerator, products: Iterable[LayerProduct]) -> Cost:
    """Sum of the costs of products; gradients of a layer and step are paired.

    Args:
        machine: any accelerator.
        products: of any number of layers and steps, for instance a trace.

    Raises:
        ValueError: there is no product.
    """
    total = sum((job_cost(machine, job) for job in jobs(machine, products)), Cost())
    if not total.prices_pj:
        raise ValueError("no product to cost")
    return total


def step_cost(
    machine: Accelerator,
    layers: Layers,
    first_input_grad: bool = False,
    kinds: Collection[Product] = tuple(Product),
) -> Cost:
    """Cost of one training step of a network, without an optimiser pass.

    Equal layers are costed once.

    Args:
        machine: a value-blind accelerator.
        layers: (name, geometry) of each layer, the first one first.
        first_input_grad: whether the first layer computes a gradient of its input too.
        kinds: the products that count.
    """
    by_layer: dict[tuple[Geometry, bool], Cost] = {}
    total = Cost()
    for index, (name, geometry) in enumerate(check_layers(layers)):
        wants_input_grad = index > 0 or first_input_grad
        key = (geometry, wants_input_grad)
        if key not in by_layer:
            products = blind_products([(name, geometry)], wants_input_grad)
            counted = [product for product in products if product.kind in kinds]
            by_layer[key] = products_cost(machine, counted)
        total += by_layer[key]
    return total
