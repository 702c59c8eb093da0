"""Recovery: how the loss of a struck training comes back to that of a clean one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elision.common import checks

__all__ = ["Recovery", "recovery", "smoothed"]


@dataclass(frozen=True)
class Recovery:
    """What a struck training did, beside the same training without faults.

    Attributes:
        steps: from the last struck step to the first after which the smoothed loss stays
            within the tolerance; None: it never does.
        excess: final smoothed loss over the clean one's, less 1.
        lost: sum over all steps of the loss above the clean one.
        diverged_at: first step whose loss is not finite; None: all are.

    Example:
        >>> clean = [1.0] * 20
        >>> struck = [1.0] * 5 + [3.0] * 3 + [1.0] * 12
        >>> recovery(clean, struck, last=5, window=1).steps
        3
    """

    steps: int | None
    excess: float
    lost: float
    diverged_at: int | None

    @property
    def silent(self) -> bool:
        """Whether the loss stayed finite and yet never came back."""
        return self.steps is None and self.diverged_at is None


def recovery(
    clean: Sequence[float],
    struck: Sequence[float],
    last: int,
    *,
    tolerance: float = 0.05,
    window: int = 10,
) -> Recovery:
    """Compare a struck training with the clean one.

    Args:
        clean: loss of every step without faults.
        struck: loss of every step with them; shorter where it diverged.
        last: the last step that was struck.
        tolerance: relative excess of the smoothed loss that counts as recovered.
        window: steps of the moving mean.

    Raises:
        ValueError: a number out of range, or more losses than the clean run has.
    """
    checks.number("recovery", "tolerance", tolerance, "(0, inf)")
    checks.integer("recovery", "window", window)
    checks.integer("recovery", "last", last, ">= 0")
    if len(struck) > len(clean):
        raise ValueError(
            f"recovery: {len(struck)} losses, and the clean run has {len(clean)}"
        )
    bad = next((k for k, x in enumerate(struck) if not math.isfinite(x)), None)
    if bad is None and len(struck) < len(clean):
        bad = len(struck)
    if bad is not None:
        return Recovery(None, math.inf, math.inf, bad)
    ours, theirs = smoothed(struck, window), smoothed(clean, window)
    outside = np.flatnonzero(ours > theirs * (1 + tolerance))
    end = int(outside[-1]) + 1 if len(outside) else 0
    steps = None if end >= len(ours) else max(0, end - last)
    lost = float(np.maximum(np.asarray(struck) - np.asarray(clean), 0).sum())
    return Recovery(steps, float(ours[-1] / theirs[-1] - 1), lost, None)


def smoothed(losses: Sequence[float], window: int) -> np.ndarray:
    """Mean of each loss and of those before it, ``window`` at most.

    Example:
        >>> smoothed([1.0, 3.0, 5.0], 2).tolist()
        [1.0, 2.0, 4.0]
    """
    total = np.concatenate([[0.0], np.cumsum(np.asarray(losses, float))])
    end = np.arange(1, len(losses) + 1)
    begin = np.maximum(end - window, 0)
    return (total[end] - total[begin]) / (end - begin)
