"""Common ground of inner-product machines: work per output, spread over elements.

An inner-product machine computes one output after the other, so its work is a number of
multiplications per output. That number is itself a product: the layer's own, with masks
in place of values. Padding is not part of any operand, and so is never multiplied.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from elision.accelerators.base import ceil_div
from elision.common.checks import integer
from elision.products import LayerProduct

__all__ = ["elements_of", "multiplications_per_output", "spread"]


def multiplications_per_output(
    product: LayerProduct, first: np.ndarray | None, second: np.ndarray | None
) -> np.ndarray:
    """Pairs of selected operand values that meet in each output, int64, flat.

    Args:
        product: gives the shape and the kind of product; its values are not read.
        first: mask of the values of the first operand that take part; None: all.
        second: the same of the second operand.
    """
    shapes = [product.geometry.shape_of(name) for name in product.kind.operands]
    # No output has more products than an operand has values. Counts are exact in fp32
    # below 2**24; rounding undoes what an algorithm such as Winograd's may add.
    exact = min(math.prod(shape) for shape in shapes) < 2**24
    dtype = torch.float32 if exact else torch.float64
    masks = [
        torch.ones(shape, dtype=dtype)
        if mask is None
        else torch.from_numpy(mask).to(dtype)
        for shape, mask in zip(shapes, (first, second), strict=True)
    ]
    counts = replace(product, first=masks[0], second=masks[1]).compute()
    return counts.double().round().long().flatten().numpy()


def elements_of(multipliers: int, lanes: int) -> int:
    """Elements of ``lanes`` multipliers each.

    Raises:
        ValueError: the lanes do not divide the multipliers.
    """
    if multipliers % integer("sweep", "lanes", lanes):
        raise ValueError(
            f"{multipliers} multipliers are no whole number of elements with {lanes} lanes"
        )
    return multipliers // lanes


def spread(cycles_per_output: np.ndarray, elements: int) -> int:
    """Cycles of ``elements`` that share the outputs without loss.

    No fewer than the longest output takes.
    """
    total = int(cycles_per_output.sum())
    return max(ceil_div(total, elements), int(cycles_per_output.max(initial=0)))
