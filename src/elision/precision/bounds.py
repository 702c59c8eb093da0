"""Bounds of a perturbation through a chain of layers, and the margin rule.

Layer ``l`` of a chain computes ``y_l = f(W_l·y_{l-1} + b_l)`` with a 1-Lipschitz ``f``.
With ``W_l + E_l`` in place of ``W_l``, the relative error ``δ_l = ‖ỹ_l − y_l‖/‖y_l‖``
obeys ::

    δ_l ≤ γ_l·(δ_{l-1} + ε_l·(1 + δ_{l-1}))
    ε_l = ‖E_l‖/‖W_l‖        γ_l = ‖W_l‖·‖y_{l-1}‖/‖y_l‖

in operator norms; where all ``γ_l = 1``, that is ``1 + δ_L ≤ ∏(1 + ε_l)``. Real errors often
lie between the root of the sum of squares of the ``ε_l``, which independent errors give,
and their sum, to which the product is near for small ones.

Source: the triangle inequality, once a layer; Kundu et al., Ternary Residual Networks,
arXiv 1707.04679, take the product form.
"""

import math
from collections.abc import Sequence

from torch import Tensor

__all__ = ["is_safe", "product_bound", "propagated", "root_sum_square"]


def propagated(
    gains: Sequence[float], noises: Sequence[float], start: float = 0.0
) -> list[float]:
    """Upper bounds of the relative error after each layer of a chain.

    Args:
        gains: ``γ_l`` of each layer, at least 1 where there is no bias.
        noises: ``ε_l`` of each layer.
        start: relative error of the input.

    Raises:
        ValueError: not as many gains as noises.

    Example:
        >>> propagated([1.0, 2.0], [0.1, 0.1])
        [0.1, 0.42000000000000004]
    """
    if len(gains) != len(noises):
        raise ValueError(
            f"propagated: {len(gains)} gains for {len(noises)} noises; needs one of each "
            "for every layer"
        )
    bounds, error = [], start
    for gain, noise in zip(gains, noises, strict=True):
        error = gain * (error + noise * (1 + error))
        bounds.append(error)
    return bounds


def product_bound(noises: Sequence[float]) -> float:
    """``∏(1 + ε_l) − 1``: the bound where every gain is 1.

    Example:
        >>> round(product_bound([0.1, 0.1]), 12)
        0.21
    """
    return math.prod(1 + noise for noise in noises) - 1


def root_sum_square(noises: Sequence[float]) -> float:
    """``√Σε_l²``: the error that independent errors add up to.

    Example:
        >>> root_sum_square([3.0, 4.0])
        5.0
    """
    return math.hypot(*noises)


def is_safe(scores: Tensor, perturbed: Tensor) -> Tensor:
    """Examples whose first class no error of the size seen can change: ``(N,)`` booleans.

    That is where ``max|Δz| < (z₁ − z₂)/2``, with ``z₁ ≥ z₂`` the two largest scores. The
    rule is safe, not tight: most of the other examples keep their class as well.

    Args:
        scores: ``(N, classes)``, two classes or more.
        perturbed: the scores with the error.

    Raises:
        ValueError: other shapes.

    Example:
        >>> import torch
        >>> exact = torch.tensor([[3.0, 1.0], [3.0, 2.9]])
        >>> is_safe(exact, exact + torch.tensor([0.5, -0.4])).tolist()
        [True, False]
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.shape != perturbed.shape:
        raise ValueError(
            f"is_safe: needs scores (N, classes >= 2) twice, got {tuple(scores.shape)} "
            f"and {tuple(perturbed.shape)}"
        )
    first, second = scores.topk(2, dim=1).values.unbind(1)
    return (perturbed - scores).abs().amax(1) < (first - second) / 2
