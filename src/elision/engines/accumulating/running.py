"""How a sum grows in an accumulator: swamping, to be seen."""

from collections.abc import Sequence

import torch
from torch import Tensor

from elision.engines.accumulating.compute import compute
from elision.formats.accumulate import Accumulate
from elision.products import LayerProduct, MatmulGeometry, Product

__all__ = ["running_sums"]


def running_sums(
    terms: Tensor, accumulate: Accumulate, counts: Sequence[int], key: int = 0
) -> Tensor:
    """Sums of the first terms of a sequence, for several numbers of terms.

    A term that is smaller than half a step of the sum is lost (*swamping*); in chunks,
    the sum stays small while terms are added to it.

    Args:
        terms: ``(T,)``.
        accumulate: how to sum.
        counts: how many terms, from 0 to T, for each sum.
        key: of the random bits of stochastic rounding.

    Returns:
        float32, one sum for each count.

    Example:
        >>> ones, counts = torch.ones(4096), (1024, 2048, 4096)
        >>> running_sums(ones, Accumulate("fp16"), counts).tolist()
        [1024.0, 2048.0, 2048.0]
        >>> running_sums(ones, Accumulate("fp16", chunk=64), counts).tolist()
        [1024.0, 2048.0, 4096.0]
    """
    (length,) = terms.shape
    place = torch.arange(length)
    # Zeros behind the last term change no sum; chunks stay in their places.
    rows = torch.stack([torch.where(place < n, terms.float(), 0.0) for n in counts])
    geometry = MatmulGeometry(len(counts), length, 1)
    product = LayerProduct(Product.FORWARD, geometry, rows, torch.ones(1, length))
    return compute(product, accumulate, key)[:, 0]
