"""What inner-product machines share: work per output, spread over elements.

An inner-product machine computes one output after the other, so its work is a number of
multiplications per output. That number is itself a product: the layer's own, with masks
in place of values. Padding is not part of any operand, and so is never multiplied.
"""

from dataclasses import replace

import numpy as np
import torch

from elision.accelerators.base import ceil_div
from elision.products import LayerProduct

__all__ = ["multiplications_per_output", "spread"]


def multiplications_per_output(
    product: LayerProduct, first: np.ndarray | None, second: np.ndarray | None
) -> np.ndarray:
    """Pairs of selected operand values that meet in each output, int64, flat.

    Args:
        product: gives the shape and the kind of product; its values are not read.
        first: mask of the values of the first operand that take part; None: all.
        second: the same of the second operand.
    """
    masks = []
    for name, mask in zip(product.kind.operands, (first, second), strict=True):
        if mask is None:
            masks.append(torch.ones(product.geometry.shape_of(name)))
        else:
            masks.append(torch.from_numpy(mask).float())
    counts = replace(product, first=masks[0], second=masks[1]).compute()
    # Sums of products of 0 and 1 are exact in fp32 below 2**24; round all the same,
    # because an algorithm such as Winograd's may compute them with rounding.
    return counts.double().round().long().flatten().numpy()


def spread(cycles_per_output: np.ndarray, elements: int) -> int:
    """Cycles of ``elements`` that share the outputs without loss.

    No fewer than the longest output takes.
    """
    total = int(cycles_per_output.sum())
    return max(ceil_div(total, elements), int(cycles_per_output.max(initial=0)))
