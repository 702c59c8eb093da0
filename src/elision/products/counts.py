"""Exact numbers of non-zero, valid and redundant products, without enumerating pairs.

A product fixes two of the three tensors and sums over the index tuples that they can
form (:mod:`elision.products.convolution`); the tensor that is absent is, for counting, all
ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from elision.products.axes import axes_of
from elision.products.convolution import Convolution
from elision.products.kinds import Product

__all__ = ["ProductCounts", "convolution_counts"]


@dataclass(frozen=True)
class ProductCounts:
    """Exact numbers of products of two non-zero operand values.

    Attributes:
        nonzero: pairs that an outer-product machine forms: every non-zero of a plane of
            the first operand with every non-zero of the matching plane of the second.
        valid: those pairs that belong to an output of the product.

    Example:
        >>> ProductCounts(nonzero=10, valid=8).rcp_fraction
        0.2
    """

    nonzero: int
    valid: int

    @property
    def redundant(self) -> int:
        """Redundant Cartesian products (RCPs): pairs that belong to no output."""
        return self.nonzero - self.valid

    @property
    def rcp_fraction(self) -> float:
        """Share of RCPs among the non-zero products; 0 where there is none."""
        return self.redundant / self.nonzero if self.nonzero else 0.0


#: Axis of each operand, split into groups, that its partner and the planes leave free.
_FREE = {
    Product.FORWARD: {"input": 0, "weight": 1},
    Product.INPUT_GRAD: {"grad_output": 0, "weight": 2},
    Product.WEIGHT_GRAD: {"grad_output": 2, "input": 2},
}


def convolution_counts(
    kind: Product, geometry: Convolution[Any], masks: Mapping[str, np.ndarray]
) -> ProductCounts:
    """Counts of one product of a convolution from planes of per-position counts.

    Each product shares one channel-like index between its operands (c, k or n) and
    leaves one free on each side; summing the masks over the free ones first leaves one
    small plane per shared index.

    Args:
        kind: the product.
        geometry: shape of the layer.
        masks: where the two operands are non-zero, by operand, torch layout.
    """
    g, n = geometry.groups, geometry.batch
    c, k = geometry.in_channels // g, geometry.out_channels // g
    grouped = {
        "input": (n, g, c, *geometry.sizes),
        "weight": (g, k, c, *geometry.kernel),
        "grad_output": (n, g, k, *geometry.out_sizes),
    }
    planes: dict[str, np.ndarray] = {}
    for name, axis in _FREE[kind].items():
        values = masks[name].reshape(grouped[name]).sum(axis, dtype=np.int64)
        planes[name] = values.reshape(-1, *grouped[name][3:])
    left, right = (
        planes[name].reshape(len(planes[name]), -1).sum(1) for name in kind.operands
    )
    nonzero = int(left @ right)
    # The valid ones: one operand's values, summed onto the places of the other's.
    first, second = kind.operands
    met = planes[first]
    for index, axis in enumerate(axes_of(geometry), start=1):
        met = axis.sums(met, index, first, second)
    return ProductCounts(nonzero=nonzero, valid=int((met * planes[second]).sum()))
