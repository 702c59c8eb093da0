"""Schedules of mask moves and of their size: functions of the step as data.

Steps count from 1: step ``t`` is the ``t``-th call of ``optimizer.step``.
"""

import math
from dataclasses import dataclass
from typing import Literal

from elision.common.checks import integer, number
from elision.common.names import lookup

__all__ = ["CubicSparsity", "DropFraction", "Periodic"]


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


#: Shapes of a falling fraction: progress in [0, 1] -> share of the way still to go.
_DECAYS = {
    "cosine": _cosine,
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}


@dataclass(frozen=True)
class Periodic:
    """Every ``every`` steps while ``t <= until``.

    Attributes:
        every: steps between moves.
        until: last step at which a mask may move; None for no end.
        phases: ``(first step, every)`` pairs; from that step on, the other period.

    Raises:
        ValueError: a period or ``until`` is not an integer >= 1.

    Example:
        >>> [step for step in range(1, 500) if Periodic(100, until=300).at(step)]
        [100, 200, 300]
    """

    every: int
    until: int | None = None
    phases: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        integer("Periodic", "every", self.every)
        for first, period in self.phases:
            integer("Periodic", "phases", first, ">= 0")
            integer("Periodic", "phases", period)
        if self.until is not None:
            integer("Periodic", "until", self.until)

    def at(self, step: int) -> bool:
        """True if masks move in this step."""
        every = self.every
        for first, period in self.phases:
            every = period if step >= first else every
        over = self.until is not None and step > self.until
        return step > 0 and not over and step % every == 0


@dataclass(frozen=True)
class DropFraction:
    """Share of the active weights that a move drops: from ``start`` to ``end``.

    With ``"cosine"``, ``f(t) = end + (start − end)/2 · (1 + cos(pi·t/horizon))``
    (RigL, with ``end = 0``); ``"constant"`` stays at ``start``.

    Attributes:
        start: at step 0, in [0, 1).
        end: from step ``horizon`` on, in [0, 1).
        horizon: steps, >= 1.
        decay: ``"cosine"``, ``"linear"`` or ``"constant"``.

    Raises:
        ValueError: a number is out of its range, or the decay is unknown.

    Example:
        >>> fraction = DropFraction(start=0.3, horizon=1000)
        >>> fraction.at(0), round(fraction.at(500), 3), fraction.at(1000)
        (0.3, 0.15, 0.0)
    """

    start: float = 0.3
    end: float = 0.0
    horizon: int = 25_000
    decay: Literal["cosine", "linear", "constant"] = "cosine"

    def __post_init__(self) -> None:
        lookup("decay", self.decay, _DECAYS)
        number("DropFraction", "start", self.start, "[0, 1)")
        number("DropFraction", "end", self.end, "[0, 1)")
        integer("DropFraction", "horizon", self.horizon)

    def at(self, step: int) -> float:
        """The fraction in this step."""
        remaining = _DECAYS[self.decay](min(1.0, step / self.horizon))
        return self.end + (self.start - self.end) * remaining


@dataclass(frozen=True)
class CubicSparsity:
    """Progress of gradual pruning: ``1 − (1 − (t − start)/(end − start))^3``.

    Zhu and Gupta, To prune, or not to prune, 2017, equation 1: the sparsity at step
    ``t`` is this times the final one.

    Attributes:
        start: last step at which nothing is pruned.
        end: first step at the final sparsity.

    Raises:
        ValueError: not ``0 <= start < end``.

    Example:
        >>> CubicSparsity(start=0, end=100).at(50)
        0.875
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        integer("CubicSparsity", "start", self.start, ">= 0")
        if self.start >= self.end:
            raise ValueError(
                f"gradual pruning needs 0 <= start < end, got {self.start}, {self.end}"
            )

    def at(self, step: int) -> float:
        """Share of the final sparsity that is reached in this step."""
        progress = (step - self.start) / (self.end - self.start)
        return 1 - (1 - min(1.0, max(0.0, progress))) ** 3
