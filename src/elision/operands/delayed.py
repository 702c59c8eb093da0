"""Delayed scaling: a scale from the largest magnitudes of earlier steps."""

import math
import warnings

import torch
from torch import Tensor

__all__ = ["FIRST_SCALE", "largest_magnitude", "next_scale"]

#: Scale before the first step, as Transformer Engine has it.
FIRST_SCALE = 1.0

_LARGEST = torch.finfo(torch.float32).max


def largest_magnitude(x: Tensor) -> float:
    """Largest finite magnitude of a tensor; 0 if there is none.

    Example:
        >>> largest_magnitude(torch.tensor([1.0, -3.0, torch.inf]))
        3.0
    """
    if not x.numel():
        return 0.0
    low, high = torch.aminmax(x.detach())
    largest = max(-low.item(), high.item())
    if math.isfinite(largest) and not math.isnan(low.item()):
        return largest
    return torch.where(torch.isfinite(x), x.abs(), 0).amax().item()


def next_scale(maximum: float, scale: float, largest: float, margin: int) -> float:
    """Scale of the next step: ``largest/maximum / 2^margin``.

    The old scale where the maximum is 0; the largest float32 where the quotient is
    beyond it.

    Args:
        maximum: the maximum of the history, finite.
        scale: the scale so far.
        largest: the largest value of the format.
        margin: powers of two left free above the maximum.

    Warns:
        RuntimeWarning: the quotient is beyond float32.

    Source: Transformer Engine, ``recipe.DelayedScaling`` and its default computation of
    the scaling factor.

    Example:
        >>> next_scale(maximum=7.0, scale=1.0, largest=448.0, margin=1)
        32.0
    """
    if maximum <= 0:
        return scale
    found = math.ldexp(largest / maximum, -margin)
    if found > _LARGEST:
        warnings.warn(
            f"delayed scaling: the largest magnitude is {maximum:.3g}, for which the scale "
            f"{largest:.6g}/{maximum:.3g} is beyond float32; it stays at {_LARGEST:.3g}",
            RuntimeWarning,
            stacklevel=2,
        )
        return _LARGEST
    return found
