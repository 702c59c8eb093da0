"""Products with random operands, to study a machine without training."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from elision.common.checks import number
from elision.products.geometry import Geometry
from elision.products.kinds import OPERANDS, Product
from elision.products.layer_product import LayerProduct

__all__ = ["sparse_array", "synthetic_products"]


def sparse_array(
    shape: tuple[int, ...], sparsity: float, rng: np.random.Generator
) -> np.ndarray:
    """Float32 array with exactly ``round(n·sparsity)`` zeros at uniform positions.

    The other values are integers from 1 to 99, which keeps sums of products exact.

    Raises:
        ValueError: a sparsity outside [0, 1].

    Example:
        >>> int((sparse_array((4, 5), 0.25, np.random.default_rng(0)) == 0).sum())
        5
    """
    sparsity = number("sparse_array", "sparsity", sparsity, "[0, 1]")
    values = rng.integers(1, 100, size=int(np.prod(shape)))
    zeros = round(values.size * sparsity)
    values[rng.permutation(values.size)[:zeros]] = 0
    return values.reshape(shape).astype(np.float32)


def synthetic_products(
    layers: Iterable[tuple[str, Geometry]],
    sparsity: float | Mapping[str, float],
    seed: int = 0,
) -> Iterator[LayerProduct]:
    """All three products of given layers, with operands of a given sparsity.

    The layer's three tensors are drawn once (input, weight, grad_output, in this order
    from one stream) and shared by its products. Uniform positions overstate how evenly
    work spreads; use a recorded trace for any claim about a method.

    Args:
        layers: ``(name, geometry)`` pairs.
        sparsity: fraction of zeros, of all operands or by operand name; an operand
            that is not named is dense.
        seed: of the random stream.

    Raises:
        ValueError: a sparsity outside [0, 1] or of an unknown operand.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> layers = [("fc", MatmulGeometry(2, 3, 4))]
        >>> [product.kind.value for product in synthetic_products(layers, 0.5)]
        ['forward', 'input_grad', 'weight_grad']
    """
    if not isinstance(sparsity, Mapping):
        sparsity = dict.fromkeys(OPERANDS, sparsity)
    unknown = sparsity.keys() - {*OPERANDS}
    if unknown:
        raise ValueError(
            f"unknown operand {sorted(unknown)[0]!r}; known: {', '.join(OPERANDS)}"
        )
    rng = np.random.default_rng(seed)
    for name, geometry in layers:
        drawn = {
            o: sparse_array(geometry.shape_of(o), sparsity.get(o, 0.0), rng)
            for o in OPERANDS
        }
        for product in Product:
            first, second = (drawn[o] for o in product.operands)
            yield LayerProduct(product, geometry, first, second, name)
