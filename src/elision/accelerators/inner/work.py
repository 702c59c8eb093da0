"""Common ground of inner-product machines: work per output, spread over elements.

An inner-product machine computes one output after the other, so its work is a number of
multiplications per output. Along each axis of an image, pixel ``h``, tap ``r`` and output
``o`` meet iff ``h = o·t − p + r·d`` (:mod:`elision.products.convolution`); padding is no
part of an operand, and so is never multiplied.

How many values of *one* operand meet an output does not depend on the other: they are
summed over the index that both operands share, then along each axis on its own. Pairs of
non-zeros of *both* are counted in :mod:`elision.accelerators.inner.matching`.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from elision.accelerators.base import ceil_div
from elision.products import Convolution, LayerProduct, Product
from elision.products.axes import axes_of

__all__ = ["Outputs", "as_groups", "one_sided", "places", "spread"]


class Outputs(NamedTuple):
    """Work of all outputs of a product.

    Attributes:
        work: multiplications of an output, int64.
        times: number of outputs that each entry of ``work`` stands for; broadcasts.

    Example:
        >>> Outputs(np.array([2, 3]), np.array(4)).total
        20
    """

    work: np.ndarray
    times: np.ndarray

    @property
    def total(self) -> int:
        """Sum over all outputs."""
        return int((self.work * self.times).sum())


def spread(total: int, longest: int, elements: int) -> int:
    """Cycles of ``elements`` that share the outputs' cycles without loss.

    No fewer than the longest output takes.

    Example:
        >>> spread(total=10, longest=4, elements=4), spread(total=10, longest=1, elements=4)
        (4, 3)
    """
    return max(ceil_div(total, elements), longest)


def as_groups(geometry: Convolution[Any], tensor: str, mask: np.ndarray) -> np.ndarray:
    """A mask with an axis for the groups.

    Returns:
        X as ``(N, groups, C, ...)``, W as ``(groups, K, C, ...)``, G as
        ``(N, groups, K, ...)``, with C and K those of one group.
    """
    if tensor == "weight":
        return mask.reshape(geometry.groups, -1, *mask.shape[1:])
    return mask.reshape(geometry.batch, geometry.groups, -1, *mask.shape[2:])


#: Axis of :func:`as_groups` that the operands of a product share.
_SHARED = {
    Product.FORWARD: {"input": 2, "weight": 2},
    Product.INPUT_GRAD: {"grad_output": 2, "weight": 1},
    Product.WEIGHT_GRAD: {"grad_output": 0, "input": 0},
}


def one_sided(product: LayerProduct, side: int) -> Outputs:
    """Non-zeros of one operand that meet each output, whatever the other one holds.

    Args:
        product: with masks for operands.
        side: 0 for the first operand, 1 for the second.
    """
    operand = product.geometry.convolution_operand(product.kind.operands[side])
    product = product.as_convolution()
    geometry: Any = product.geometry
    mask = as_groups(geometry, operand, product.operands[operand])
    planes = mask.sum(_SHARED[product.kind][operand], dtype=np.int64)
    return _along_all(product, operand, planes)


def places(product: LayerProduct) -> Outputs:
    """Places, padding left out and zeros not, that each output sums over."""
    product = product.as_convolution()
    geometry: Any = product.geometry
    operand = product.kind.operands[0]
    shared = {
        Product.FORWARD: geometry.in_channels // geometry.groups,
        Product.INPUT_GRAD: geometry.out_channels // geometry.groups,
        Product.WEIGHT_GRAD: geometry.batch,
    }[product.kind]
    sizes = [axis.size(operand) for axis in axes_of(geometry)]
    return _along_all(product, operand, np.full((1, 1, *sizes), shared, np.int64))


def _along_all(product: LayerProduct, operand: str, planes: np.ndarray) -> Outputs:
    """Sums of planes, (·, ·, ...), along every axis of the image."""
    result = product.kind.absent
    times = np.array(1)
    for index, axis in enumerate(axes_of(product.geometry), start=2):  # pyright: ignore[reportArgumentType]
        if operand != "weight":
            planes = axis.sums(planes, index, operand, result)
            times = np.multiply.outer(times, np.ones(axis.size(result), np.int64))
            continue
        # Places of the result that meet the same taps are alike: one for each kind.
        met = axis.sums(np.eye(axis.taps, dtype=np.int64), 1, "weight", result)
        kinds, number = np.unique(met, axis=1, return_counts=True)
        planes = np.moveaxis(np.moveaxis(planes, index, -1) @ kinds, -1, index)
        times = np.multiply.outer(times, number)
    per_plane = product.result_size // (math.prod(planes.shape[:2]) * int(times.sum()))
    return Outputs(planes, times * per_plane)
