"""Laws of scaling, and their fits to curves: Amdahl, Gustafson, USL, Karp-Flatt.

``S(N)`` is the speed-up of ``N`` ranks over one: of a fixed problem for Amdahl's law and
the universal scalability law (strong scaling), of one that grows with the ranks for
Gustafson's (weak scaling).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Usl",
    "amdahl",
    "fit_amdahl",
    "fit_gustafson",
    "fit_usl",
    "gustafson",
    "karp_flatt",
]


def amdahl(ranks: float, parallel: float) -> float:
    """Speed-up where the share ``parallel`` of the work is divided (Amdahl, 1967).

    Example:
        >>> amdahl(16, 0.5)
        1.8823529411764706
    """
    return 1 / ((1 - parallel) + parallel / ranks)


def gustafson(ranks: float, serial: float) -> float:
    """Scaled speed-up where the share ``serial`` of a rank's time does not grow (1988).

    Example:
        >>> gustafson(16, 0.5)
        8.5
    """
    return ranks - serial * (ranks - 1)


def karp_flatt(ranks: float, speedup: float) -> float:
    """Serial share that a measured speed-up stands for (Karp and Flatt, 1990).

    If it grows with the ranks, overheads grow; NaN for one rank.

    Example:
        >>> round(karp_flatt(16, 12.96), 4)
        0.0156
    """
    if ranks == 1:
        return math.nan
    return (1 / speedup - 1 / ranks) / (1 - 1 / ranks)


@dataclass(frozen=True)
class Usl:
    """Universal scalability law ``S = N / (1 + contention (N - 1) + coherency N (N - 1))``.

    Gunther, Guerrilla Capacity Planning, 2007.

    Attributes:
        contention: share of the work that waits its turn.
        coherency: cost of each pair of ranks.

    Example:
        >>> Usl(0.0, 0.01).speedup(10), Usl(0.0, 0.01).peak
        (5.2631578947368425, 10.0)
    """

    contention: float
    coherency: float

    def speedup(self, ranks: float) -> float:
        """Speed-up of so many ranks."""
        waiting = self.contention * (ranks - 1)
        return ranks / (1 + waiting + self.coherency * ranks * (ranks - 1))

    @property
    def peak(self) -> float:
        """Ranks with the highest speed-up; infinite without coherency."""
        if not self.coherency:
            return math.inf
        return math.sqrt(max(1 - self.contention, 0) / self.coherency)


def fit_amdahl(ranks: Sequence[float], speedups: Sequence[float]) -> float:
    """Parallel share, by least squares of ``1 / S = 1 - parallel (1 - 1 / N)``.

    Raises:
        ValueError: no rank count above one.

    Example:
        >>> round(fit_amdahl([1, 16], [1, 12.96]), 4)
        0.9844
    """
    n, s = _above_one("fit_amdahl", ranks, speedups)
    x, y = 1 - 1 / n, 1 - 1 / s
    return float(x @ y / (x @ x))


def fit_gustafson(ranks: Sequence[float], speedups: Sequence[float]) -> float:
    """Serial share, by least squares of ``N - S = serial (N - 1)``.

    Raises:
        ValueError: no rank count above one.

    Example:
        >>> fit_gustafson([1, 2, 4], [1.0, 1.5, 2.5])
        0.5
    """
    n, s = _above_one("fit_gustafson", ranks, speedups)
    return float((n - 1) @ (n - s) / ((n - 1) @ (n - 1)))


def fit_usl(ranks: Sequence[float], speedups: Sequence[float]) -> Usl:
    """The law by least squares of ``N / S - 1``, neither term below zero.

    Raises:
        ValueError: no rank count above one.

    Example:
        >>> law = fit_usl([1, 2, 8], [Usl(0.05, 0.001).speedup(n) for n in (1, 2, 8)])
        >>> round(law.contention, 6), round(law.coherency, 6)
        (0.05, 0.001)
    """
    n, s = _above_one("fit_usl", ranks, speedups)
    terms, y = np.stack([n - 1, n * (n - 1)], 1), n / s - 1
    # Relative to the first term, so that large rank counts do not decide alone.
    weighted, target = terms / terms[:, :1], y / terms[:, 0]
    candidates: list[np.ndarray] = [np.zeros(2)]
    both = np.linalg.lstsq(weighted, target)[0]
    if (both >= 0).all():
        candidates.append(both)
    for i in (0, 1):
        column = weighted[:, i]
        only = np.zeros(2)
        only[i] = max(column @ target / (column @ column), 0)
        candidates.append(only)
    best = min(candidates, key=lambda c: float(np.square(weighted @ c - target).sum()))
    return Usl(float(best[0]), float(best[1]))


def _above_one(
    owner: str, ranks: Sequence[float], speedups: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The points that say something: those of more than one rank."""
    points = [(n, s) for n, s in zip(ranks, speedups, strict=True) if n > 1]
    if not points:
        raise ValueError(
            f"{owner}: ranks {list(ranks)}: give at least one count above one"
        )
    n, s = np.array(points, float).T
    return n, s
