"""Intervals of a proportion, of one sample and of strata, and the sample that they need.

Sources: Wilson, Probable inference, the law of succession, and statistical inference,
J. Am. Stat. Assoc. 22 (1927); Clopper and Pearson, The use of confidence or fiducial
limits, Biometrika 26 (1934); Zou and Donner, Construction of confidence limits about
effect measures, Stat. Med. 27 (2008), which adds the limits of strata; Leveugle et al.,
Statistical fault injection, DATE 2009, equation 4.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from elision.common import checks

__all__ = [
    "METHODS",
    "Interval",
    "clopper_pearson",
    "sample_size",
    "stratified",
    "wilson",
]


class Interval(NamedTuple):
    """An estimate and its limits, in [0, 1]."""

    estimate: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Distance of the limits."""
        return self.high - self.low


def wilson(count: int, number: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval; of no trial, all of [0, 1].

    Args:
        count: trials with the outcome.
        number: trials.
        confidence: probability that the interval covers the true rate, nearly.

    Raises:
        ValueError: a count outside of [0, number], or a confidence outside of (0, 1).

    Example:
        >>> [round(x, 4) for x in wilson(5, 100)]
        [0.05, 0.0215, 0.1118]
    """
    z = _check(count, number, confidence)
    if not number:
        return Interval(0.0, 0.0, 1.0)
    p, r = count / number, z * z / number
    middle = (p + r / 2) / (1 + r)
    half = z / (1 + r) * math.sqrt(p * (1 - p) / number + r / (4 * number))
    return Interval(
        p,
        0.0 if count == 0 else max(0.0, middle - half),
        1.0 if count == number else min(1.0, middle + half),
    )


def clopper_pearson(count: int, number: int, confidence: float = 0.95) -> Interval:
    """The interval that covers the true rate at least with the given probability.

    Args and errors are those of :func:`wilson`.

    Example:
        >>> [round(x, 4) for x in clopper_pearson(5, 100)]
        [0.05, 0.0164, 0.1128]
    """
    from scipy.stats import beta

    _check(count, number, confidence)
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, count, number - count + 1)) if count else 0.0
    rest = number - count
    high = float(beta.ppf(1 - tail, count + 1, rest)) if rest else 1.0
    return Interval(count / number if number else 0.0, low, high)


METHODS = {"wilson": wilson, "clopper-pearson": clopper_pearson}


def stratified(
    strata: Sequence[tuple[float, Interval]],
) -> Interval:
    """The weighted sum of independent strata, by the limits of each.

    ``p = Σ w·p_s``, ``low = p − √Σ w²(p_s − low_s)²`` and ``high`` alike.

    Args:
        strata: weight and interval of each; the weights add up to 1.

    Raises:
        ValueError: weights that do not.

    Example:
        >>> one = wilson(5, 100)
        >>> stratified([(1.0, one)]) == one
        True
    """
    if not math.isclose(sum(w for w, _ in strata), 1.0, rel_tol=1e-9):
        raise ValueError(
            f"stratified: the weights must add up to 1, not {sum(w for w, _ in strata):g}"
        )
    p = sum(w * i.estimate for w, i in strata)
    below = math.sqrt(sum((w * (i.estimate - i.low)) ** 2 for w, i in strata))
    above = math.sqrt(sum((w * (i.high - i.estimate)) ** 2 for w, i in strata))
    return Interval(p, max(0.0, p - below), min(1.0, p + above))


def sample_size(
    population: int, margin: float, confidence: float = 0.95, rate: float = 0.5
) -> int:
    """Trials without repetition from ``population`` faults for a margin of error.

    ``n = N / (1 + e²(N − 1)/(z²·p(1 − p)))``.

    Example:
        >>> sample_size(10**6, 0.01)
        9513
    """
    checks.integer("sample_size", "population", population)
    checks.number("sample_size", "margin", margin, "(0, 1)")
    checks.number("sample_size", "rate", rate, "(0, 1)")
    z = _z(confidence)
    spread = margin**2 * (population - 1) / (z**2 * rate * (1 - rate))
    return math.ceil(population / (1 + spread))


def _check(count: int, number: int, confidence: float) -> float:
    checks.integer("interval", "number", number, ">= 0")
    checks.integer("interval", "count", count, f"[0, {number}]")
    return _z(confidence)


def _z(confidence: float) -> float:
    checks.number("interval", "confidence", confidence, "(0, 1)")
    return NormalDist().inv_cdf((1 + confidence) / 2)
