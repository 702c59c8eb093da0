"""A whole training step on one machine: the jobs of every layer, single or paired.

The forward product, the weight gradient and, but for the first layer, the input
gradient of each layer: the network's input is data, so training computes no gradient of
it. This is the one rule for shapes and for random operands (:func:`training_products`);
a recorded trace holds what was computed, and is costed as it is. A machine that
interleaves the two gradients of a layer
(:class:`~elision.accelerators.systolic.intergrad.InterGrad`) gets them as one job.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeGuard

from elision.accelerators.base import Accelerator, Cost
from elision.products import Geometry, LayerProduct, Product

__all__ = [
    "FIRST_INPUT_GRAD",
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
    "training_products",
]

#: Name of the two gradients of a layer on a machine that interleaves them.
GRADIENT_PAIR = f"{Product.INPUT_GRAD.value}+{Product.WEIGHT_GRAD.value}"

#: Names of jobs, see :func:`job_name`.
PRODUCT_NAMES = (*(product.value for product in Product), GRADIENT_PAIR)

#: What is said of the input gradient of a network's first layer, by whether it counts.
FIRST_INPUT_GRAD = {
    False: "without the input gradient of the first layer, which training does not compute",
    True: "with an input gradient of the first layer, which training does not compute",
}

Layers = Iterable[tuple[str, Geometry]]


def check_layers(layers: Iterable[Any]) -> list[tuple[str, Geometry]]:
    """The layers as a list of (name, geometry).

    Raises:
        ValueError: a row is something else (the message numbers it), or there is none.
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
        first_input_grad: True if the first layer computes a gradient of its input too.
    """
    products = (
        LayerProduct(kind, geometry, name=name)
        for name, geometry in check_layers(layers)
        for kind in Product
    )
    return list(training_products(products, first_input_grad))


def training_products(
    products: Iterable[LayerProduct], first_input_grad: bool = False
) -> Iterator[LayerProduct]:
    """Products of one training step: without the input gradient of the first layer.

    Args:
        products: all of a step, the first layer's first; for instance
            :func:`~elision.products.synthetic_products`.
        first_input_grad: True keeps that gradient, too.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> layer = MatmulGeometry(2, 3, 4)
        >>> step = [LayerProduct(kind, layer, name="fc") for kind in Product]
        >>> [product.kind.value for product in training_products(step)]
        ['forward', 'weight_grad']
    """
    waits = not first_input_grad
    first: str | None = None
    for product in products:
        first = product.name if first is None else first
        # Once: a later layer may have the first one's name.
        if waits and product.kind is Product.INPUT_GRAD and product.name == first:
            waits = False
            continue
        yield product


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
    """Jobs of the machine, one after the other: single products, or pairs of gradients."""
    if machine.interleaves:
        return paired(products)
    return ((product,) for product in products)


def job_name(job: tuple[LayerProduct, ...]) -> str:
    """Name of a job: of its product, or of the pair."""
    return "+".join(product.kind.value for product in job)


def job_cost(machine: Accelerator, job: tuple[LayerProduct, ...]) -> Cost:
    """Cost of one of the :func:`jobs`: a product, or a pair of gradients."""
    return machine.cost_pair(*job) if len(job) == 2 else machine.cost(job[0])


def products_cost(machine: Accelerator, products: Iterable[LayerProduct]) -> Cost:
    """Sum of the costs of products; gradients of a layer and step are paired.

    Args:
        machine: any accelerator.
        products: of any number of layers and steps, for instance a trace.

    Raises:
        ValueError: there is no product.
    """
    costs = [job_cost(machine, job) for job in jobs(machine, products)]
    if not costs:
        raise ValueError("no product to cost")
    return sum(costs, Cost())


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
        first_input_grad: True if the first layer computes a gradient of its input too.
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
