"""Older replacements of tanh and the sigmoid: rational and piecewise linear ones.

What K-TanH is compared with. All are plain torch functions, whose gradients are their own.
"""

import torch
from torch import Tensor

from elision.common.checks import integer

__all__ = [
    "hard_sigmoid",
    "hard_tanh",
    "plan_sigmoid",
    "plan_tanh",
    "rational_sigmoid",
    "rational_tanh",
]


def rational_tanh(x: Tensor, terms: int = 3) -> Tensor:
    """Lambert's continued fraction of tanh, cut off, clamped to [-1, 1].

    ``tanh x = x / (1 + x² / (3 + x² / (5 + ...)))`` (J. H. Lambert, 1761), a ratio of two
    polynomials; of three terms ``x·(15 + x²) / (15 + 6x²)``. Where it is cut, and that it
    is clamped, are own choices. Largest error 1.9e-2 of three terms, 1.4e-3 of five.

    Args:
        x: any shape.
        terms: divisors 1, 3, 5, ... that are kept; odd, as an even number of them falls
            back to zero for large x.

    Raises:
        ValueError: an even number of terms, or below 3.

    Example:
        >>> rational_tanh(torch.tensor([1.0, 9.0])).tolist()
        [0.761904..., 1.0]
    """
    terms = integer("rational_tanh", "terms", terms, ">= 3")
    if terms % 2 == 0:
        raise ValueError(f"rational_tanh(terms={terms}): must be odd")
    near = x.clamp(-_FAR, _FAR)
    square = near * near
    divisor = torch.full_like(square, 2 * terms - 1)
    for term in range(terms - 1, 0, -1):
        divisor = (2 * term - 1) + square / divisor
    return (near / divisor).clamp(-1, 1)


#: Beyond, the fraction is clamped; its square is in float16's range.
_FAR = 100.0


def rational_sigmoid(x: Tensor, terms: int = 3) -> Tensor:
    """``(1 + rational_tanh(x / 2)) / 2``.

    Example:
        >>> rational_sigmoid(torch.tensor(0.0)).item()
        0.5
    """
    return 0.5 * rational_tanh(0.5 * x, terms) + 0.5


def plan_sigmoid(x: Tensor) -> Tensor:
    """Sigmoid of eight lines whose slopes are powers of two ("PLAN").

    For x ≥ 0: ``x/4 + 0.5`` below 1, ``x/8 + 0.625`` below 2.375, ``x/32 + 0.84375`` below 5,
    then 1; ``σ(-x) = 1 - σ(x)``. Largest error 1.9e-2. Amin, Curtis, Hayes-Gill, "Piecewise
    linear approximation applied to nonlinear function of a neural network", IEE Proceedings
    Circuits, Devices and Systems 144(6), 1997.

    Example:
        >>> plan_sigmoid(torch.tensor([-1.0, 0.0, 4.0])).tolist()
        [0.25, 0.5, 0.96875]
    """
    # The lines are concave: the lowest one holds.
    size = x.abs()
    half = torch.minimum(size / 4, size / 8 + 0.125)
    half = torch.minimum(half, size / 32 + 0.34375)
    half = torch.where(size >= 5, 0.5, half)
    return 0.5 + torch.copysign(half, x)


def plan_tanh(x: Tensor) -> Tensor:
    """``2·plan_sigmoid(2x) - 1``.

    Example:
        >>> plan_tanh(torch.tensor(0.25)).item()
        0.25
    """
    return 2 * plan_sigmoid(2 * x) - 1


def hard_tanh(x: Tensor) -> Tensor:
    """``x`` clamped to [-1, 1] (torch's ``hardtanh``): three lines.

    Example:
        >>> hard_tanh(torch.tensor([0.5, 7.0])).tolist()
        [0.5, 1.0]
    """
    return x.clamp(-1, 1)


def hard_sigmoid(x: Tensor) -> Tensor:
    """``(x + 3) / 6`` clamped to [0, 1], of MobileNetV3 (Howard et al., arXiv 1905.02244).

    Example:
        >>> hard_sigmoid(torch.tensor([0.0, 9.0])).tolist()
        [0.5, 1.0]
    """
    return torch.nn.functional.hardsigmoid(x)
