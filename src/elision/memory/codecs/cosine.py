"""The cosine transform of eight values, which ``jpeg`` applies to rows and columns."""

import math
from functools import cache

import torch

__all__ = ["cosine_transform"]


@cache
def cosine_transform() -> torch.Tensor:
    """The orthonormal 8-point cosine transform ``D[k, n]``, float32 on the CPU.

    Example:
        >>> d = cosine_transform()
        >>> bool(torch.allclose(d @ d.T, torch.eye(8), atol=1e-6))
        True
    """
    with torch.device("cpu"):
        n = torch.arange(8, dtype=torch.float32)
    k = n[:, None]
    transform = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    transform[0] = math.sqrt(1 / 8)
    return transform
