"""Delayed scaling as state: the maxima of earlier steps and the scale that follows."""

import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from elision.formats.delayed import delayed_scale, remembered

__all__ = ["FIRST_SCALE", "follow", "largest_magnitude"]

#: Scale before the first step, as Transformer Engine has it.
FIRST_SCALE = 1.0

_FLOAT32_MAX = torch.finfo(torch.float32).max


def largest_magnitude(x: Tensor) -> float:
    """Largest finite magnitude of a tensor; 0 if there is none.

    Example:
        >>> largest_magnitude(torch.tensor([1.0, -3.0, torch.inf]))
        3.0
    """
    if not x.numel():
        return 0.0
    low, high = (bound.item() for bound in torch.aminmax(x.detach()))
    largest = max(-low, high)
    if math.isfinite(largest) and not math.isnan(low):
        return largest
    return torch.where(torch.isfinite(x), x.abs(), 0).amax().item()


def follow(
    history: Tensor,
    scale: Tensor,
    latest: float,
    largest: float,
    margin: int,
    algorithm: Literal["max", "most-recent"],
) -> None:
    """Note the maximum of a step and set the scale of the next one; both in place.

    Args:
        history: ``(n,)``, newest first.
        scale: ``()``.
        latest: largest finite magnitude of this step.
        largest: largest value of the format.
        margin: see :func:`elision.formats.delayed.delayed_scale`.
        algorithm: see there.

    Warns:
        RuntimeWarning: the scale is beyond float32, so it is the largest float32.

    Example:
        >>> history, scale = torch.zeros(4), torch.ones(())
        >>> follow(history, scale, 7.0, 448.0, 1, "max")
        >>> history.tolist(), scale.item()
        ([7.0, 0.0, 0.0, 0.0], 32.0)
    """
    history.copy_(remembered(history, history.new_tensor(latest)))
    found = delayed_scale(history, largest, scale, margin, algorithm)
    if found.item() >= _FLOAT32_MAX > scale.item():
        warnings.warn(
            f"delayed scaling: the largest magnitude is {latest:.3g}, for which the scale "
            f"{largest:.6g}/{latest:.3g} is beyond float32; it stays at {_FLOAT32_MAX:.3g}",
            RuntimeWarning,
            stacklevel=2,
        )
    scale.copy_(found)
