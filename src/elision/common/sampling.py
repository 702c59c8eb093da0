"""Positions at which a tensor is sampled."""

import torch
from torch import Tensor

__all__ = ["spread_places"]

#: Fractional part of the golden ratio, times 2**32.
_GOLDEN = 2_654_435_769


def spread_places(size: int, count: int, device: torch.device | None = None) -> Tensor:
    """``count`` places of a flat tensor of ``size`` values, the same at every call.

    The fractional parts of multiples of the golden ratio, which lie evenly in [0, 1) at
    every scale, times the size. Multiples of an integer modulo the size would share a
    rhythm with rows, channels or images of some size.

    Args:
        size: values of the tensor, below 2**32.
        count: places wanted.
        device: of the result.

    Returns:
        int64 indices in [0, size), shape ``(count,)``.

    Example:
        >>> spread_places(100, 5)
        tensor([ 0, 61, 23, 85, 47])
    """
    # In fixed point, 31 bits behind the point, so that no product leaves 64 bits.
    turns = (torch.arange(count, device=device) * _GOLDEN & 0xFFFFFFFF) >> 1
    return turns * size >> 31
