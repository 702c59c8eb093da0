"""Delayed scaling: a scale from the largest magnitudes of earlier steps, without a state."""

from typing import Literal

import torch
from torch import Tensor

from elision.common.checks import number, one_of

__all__ = ["delayed_scale", "remembered"]

_FLOAT32_MAX = torch.finfo(torch.float32).max


def delayed_scale(
    history: Tensor,
    largest: float,
    previous: Tensor,
    margin: float = 0.0,
    algorithm: Literal["max", "most-recent"] = "max",
) -> Tensor:
    """The factor of values before they are rounded: ``largest / amax / 2^margin``.

    ``amax`` is the largest of the history or its newest entry. Where it is 0, infinite or
    NaN, the factor is the previous one; where the quotient is beyond float32, it is the
    largest float32 number.

    Args:
        history: ``(n, ...)`` float32, largest magnitudes of earlier steps, newest first.
        largest: value of the format that ``amax`` is brought to.
        previous: ``(...)`` float32, the factor of the step before; 1 in the first step.
        margin: powers of two that are left above ``amax``.
        algorithm: which entry of the history counts.

    Returns:
        ``(...)`` float32.

    Raises:
        ValueError: an unknown algorithm, or a margin that is no finite number.

    Source: ``DelayedScaling`` of NVIDIA's Transformer Engine, whose defaults are a margin of
    0 and the maximum of 1024 entries.

    Example:
        >>> history = torch.tensor([2.0, 7.0, 0.0])
        >>> delayed_scale(history, 448.0, torch.tensor(1.0)).item()
        64.0
    """
    number("delayed_scale", "margin", margin, "(-inf, inf)")
    one_of("delayed_scale", "algorithm", algorithm, ("max", "most-recent"))
    amax = history.amax(0) if algorithm == "max" else history[0]
    factor = (largest / amax) / 2.0**margin
    known = (amax > 0) & amax.isfinite()
    return torch.where(known, factor.clamp(max=_FLOAT32_MAX), previous)


def remembered(history: Tensor, amax: Tensor) -> Tensor:
    """The history with one more entry, newest first; the oldest is forgotten.

    Args:
        history: ``(n, ...)``.
        amax: ``(...)``, of the step that ends.

    Example:
        >>> remembered(torch.tensor([2.0, 7.0, 1.0]), torch.tensor(3.0)).tolist()
        [3.0, 2.0, 7.0]
    """
    return torch.cat([amax[None], history[:-1]])
