"""What a fault did: outcomes of trials, their rates, and four ways to compare them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elision.faults.intervals import METHODS, Interval, stratified

__all__ = ["OUTCOMES", "Normalised", "Trials", "rate_of"]

#: From harmless to loud. Masked: no prediction changed. Silent: some did. Critical: the
#: accuracy fell by more than a limit. Detected: a score is NaN or infinite, or a defence
#: raised an alarm.
OUTCOMES = ("masked", "silent", "critical", "detected")


@dataclass
class Trials:
    """Results of trials, one entry a trial.

    Attributes:
        stratum: number of the stratum.
        outcome: place in :data:`OUTCOMES`.
        changed: share of the predictions that changed.
        drop: accuracy lost, in [-1, 1].

    Example:
        >>> trials = Trials.empty()
        >>> trials.add(0, OUTCOMES.index("silent"), 0.25, 0.0)
        >>> len(trials), trials.share("silent")
        (1, 1.0)
    """

    stratum: list[int]
    outcome: list[int]
    changed: list[float]
    drop: list[float]

    @staticmethod
    def empty() -> "Trials":
        """No trial yet."""
        return Trials([], [], [], [])

    def __len__(self) -> int:
        return len(self.outcome)

    def add(self, stratum: int, outcome: int, changed: float, drop: float) -> None:
        """Add one trial."""
        self.stratum.append(stratum)
        self.outcome.append(outcome)
        self.changed.append(changed)
        self.drop.append(drop)

    def extend(self, other: "Trials") -> None:
        """Add the trials of a later block."""
        self.stratum += other.stratum
        self.outcome += other.outcome
        self.changed += other.changed
        self.drop += other.drop

    def share(self, outcome: str) -> float:
        """Share of the trials that ended so, strata aside."""
        found = self.outcome.count(OUTCOMES.index(outcome))
        return found / len(self) if len(self) else 0.0

    def of(self, stratum: int) -> "Trials":
        """Those of one stratum, as trials of a single one."""
        at = [i for i, s in enumerate(self.stratum) if s == stratum]
        return Trials(
            [0] * len(at),
            [self.outcome[i] for i in at],
            [self.changed[i] for i in at],
            [self.drop[i] for i in at],
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The entries as arrays."""
        return {
            "stratum": np.asarray(self.stratum, np.int32),
            "outcome": np.asarray(self.outcome, np.int8),
            "changed": np.asarray(self.changed, np.float64),
            "drop": np.asarray(self.drop, np.float64),
        }


@dataclass(frozen=True)
class Normalised:
    """One resilience by four measures; only ratios between networks mean something.

    With ``q`` the share of predictions that one fault changes, ``B`` the stored bits that
    it reaches:

    Attributes:
        per_flip: ``q``: as many faults in every network.
        per_stored_bit: ``q·B``: as many faults a stored bit, so a larger memory is hit
            more often.
        per_surviving_weight: ``q·B / values that are not zero``: the same, for each value
            that is left.
        per_inference: ``q·B·(MACs done / dense MACs)``: as many faults a stored bit and
            unit of time, while an inference takes time in proportion to its work.

    Example:
        >>> dense = Normalised.of(0.0098, stored_bits=320, surviving=10, work=1.0)
        >>> int8 = Normalised.of(0.0017, stored_bits=80, surviving=10, work=1.0)
        >>> round(dense.per_flip / int8.per_flip, 1)
        5.8
        >>> round(dense.per_stored_bit / int8.per_stored_bit, 1)
        23.1
    """

    per_flip: float
    per_stored_bit: float
    per_surviving_weight: float
    per_inference: float

    @staticmethod
    def of(
        changed: float, *, stored_bits: int, surviving: int, work: float
    ) -> "Normalised":
        """All four of ``q``.

        Args:
            changed: ``q``.
            stored_bits: ``B``.
            surviving: values that are not zero.
            work: MACs done over dense MACs.
        """
        rate = changed * stored_bits
        return Normalised(changed, rate, rate / max(surviving, 1), rate * work)

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return dict(vars(self))


def rate_of(
    trials: Trials,
    outcome: str | Sequence[str],
    weights: Sequence[float],
    confidence: float = 0.95,
    method: str = "wilson",
) -> Interval:
    """The rate of an outcome over strata of the given weights, with its interval.

    Args:
        trials: all of them.
        outcome: a name of :data:`OUTCOMES`, or several.
        weights: share of each stratum in the bits that a fault reaches.
        confidence: of the interval.
        method: ``"wilson"`` or ``"clopper-pearson"``.

    Example:
        >>> trials = Trials.empty()
        >>> for k in range(100):
        ...     trials.add(0, int(k < 5), float(k < 5), 0.0)
        >>> rate_of(trials, "silent", [1.0]).estimate
        0.05
    """
    names = (outcome,) if isinstance(outcome, str) else outcome
    kinds = {OUTCOMES.index(name) for name in names}
    number = np.bincount(trials.stratum, minlength=len(weights))
    hit = [s for s, o in zip(trials.stratum, trials.outcome, strict=True) if o in kinds]
    count = np.bincount(np.asarray(hit, int), minlength=len(weights))
    interval = METHODS[method]
    return stratified(
        [
            (w, interval(int(c), int(n), confidence))
            for w, c, n in zip(weights, count, number, strict=True)
        ]
    )


def mean_changed(trials: Trials, weights: Sequence[float]) -> float:
    """The share of predictions that one fault changes, over all strata.

    Strata without a trial count as 0.

    Example:
        >>> mean_changed(Trials([0, 1], [1, 0], [0.5, 0.0], [0.0, 0.0]), [0.5, 0.5])
        0.25
    """
    total = np.bincount(trials.stratum, trials.changed, minlength=len(weights))
    number = np.bincount(trials.stratum, minlength=len(weights))
    return float(np.dot(weights, total / np.maximum(number, 1)))


def rows(
    trials: Trials,
    names: Sequence[str],
    confidence: float = 0.95,
    method: str = "wilson",
) -> list[dict[str, Any]]:
    """A row a stratum: trials, outcomes, mean share of changed predictions.

    Args:
        trials: of all strata.
        names: of the strata.
        confidence: of the interval of wrong trials.
        method: see :func:`rate_of`.
    """
    found = []
    for k, name in enumerate(names):
        own = trials.of(k)
        silent = rate_of(own, ("silent", "critical"), [1.0], confidence, method)
        found.append(
            {
                "stratum": name,
                "trials": len(own),
                **{f"{o} %": 100 * own.share(o) for o in OUTCOMES},
                "changed %": 100 * mean_changed(own, [1.0]),
                "wrong low %": 100 * silent.low,
                "wrong high %": 100 * silent.high,
            }
        )
    return found
