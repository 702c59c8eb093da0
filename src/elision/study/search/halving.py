"""Successive halving, Hyperband and ASHA: who is trained further, as lists of jobs.

Each is a schedule that is asked for jobs and told their losses. It knows candidates by
number, trains nothing and draws nothing, so that a table of losses is enough to test it.

Many candidates begin with few epochs; the best share ``1/eta`` of a rung goes on to the
next, with ``eta`` times the epochs:

* successive halving (Karnin, Koren, Somekh, ICML 2013; Jamieson, Talwalkar, AISTATS 2016)
  waits for a whole rung;
* Hyperband (Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar, JMLR 18, 2018) runs several
  such brackets, from many candidates that begin with little to few that begin with all,
  because nobody knows how early a loss can be trusted;
* ASHA (Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar, MLSys 2020)
  promotes whenever a process is free, from what is known by then, and waits for nobody. It
  may pass over the best: a candidate promoted too early stays promoted.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from elision.common.checks import integer

__all__ = [
    "Asha",
    "Bracket",
    "Halving",
    "Hyperband",
    "Job",
    "Schedule",
    "brackets",
    "rungs",
]


class Job(NamedTuple):
    """A candidate to be trained up to a rung's epochs.

    Attributes:
        candidate: its number.
        rung: from 0.
        epochs: up to which it is trained, those of the rungs below included.

    Example:
        >>> Job(candidate=4, rung=1, epochs=3).epochs
        3
    """

    candidate: int
    rung: int
    epochs: int


class Bracket(NamedTuple):
    """A successive halving of Hyperband.

    Attributes:
        candidates: that begin.
        epochs: of each rung, the last one's the most that anything is trained.

    Example:
        >>> Bracket(9, (1, 3, 9)).sizes(3)
        [9, 3, 1]
    """

    candidates: int
    epochs: tuple[int, ...]

    def sizes(self, eta: int) -> list[int]:
        """Candidates on each rung."""
        found = [self.candidates]
        while len(found) < len(self.epochs):
            found.append(max(1, found[-1] // eta))
        return found

    def cost(self, eta: int, *, continued: bool = True) -> int:
        """Epochs that the bracket trains.

        Args:
            eta: factor from rung to rung.
            continued: a candidate that is promoted goes on; False: each rung is trained
                from the start, as the published costs have it.
        """
        before = (0, *self.epochs) if continued else (0,) * len(self.epochs)
        return sum(
            size * (epochs - done)
            for size, epochs, done in zip(
                self.sizes(eta), self.epochs, before, strict=False
            )
        )


def rungs(most: int, eta: int = 3, least: int = 1) -> tuple[int, ...]:
    """Epochs of the rungs from ``least`` or a little more up to ``most``.

    From ``most`` down each is the one above divided by ``eta``, rounded down.

    Args:
        most: epochs of a whole training.
        eta: at least 2.
        least: that no rung is below.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> rungs(9), rungs(10), rungs(12, eta=2, least=3)
        ((1, 3, 9), (1, 3, 10), (3, 6, 12))
    """
    integer("rungs", "most", most)
    integer("rungs", "eta", eta, ">= 2")
    integer("rungs", "least", least, f"[1, {most}]")
    found = [most]
    while found[-1] // eta >= least:
        found.append(found[-1] // eta)
    return tuple(reversed(found))


def brackets(most: int, eta: int = 3) -> list[Bracket]:
    """Brackets of Hyperband(R, η) with R = ``most`` epochs.

    ``s_max = ⌊log_η R⌋``; for s = s_max..0: ``n = ⌈(s_max + 1)·η^s / (s + 1)⌉`` candidates
    begin with ``r = R·η^-s`` epochs, rounded down where R is no power of η.

    Args:
        most: epochs of a whole training.
        eta: at least 2.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> [(b.candidates, b.epochs[0]) for b in brackets(81)]
        [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]
        >>> [b.cost(3, continued=False) for b in brackets(81)]
        [405, 363, 351, 378, 405]
    """
    epochs = rungs(most, eta)
    last = len(epochs) - 1
    return [
        Bracket(-(-(last + 1) * eta**s // (s + 1)), epochs[last - s :])
        for s in range(last, -1, -1)
    ]


class Schedule(ABC):
    """Who is trained next, from the losses so far.

    Attributes:
        candidates: how many there are; their numbers count from 0.

    Example:
        >>> schedule: Schedule = Halving(3, (1, 3))
        >>> [schedule.ask() for _ in range(4)][-1] is None  # the rung's losses are missing
        True
    """

    candidates: int

    @abstractmethod
    def ask(self) -> Job | None:
        """The next job; None where there is none before more losses are known."""

    @abstractmethod
    def tell(self, job: Job, loss: float) -> None:
        """The loss of a job; infinite where the training diverged."""


class Halving(Schedule):
    """Successive halving: the best ``1/eta`` of a rung go on, all others stop.

    Of equal losses the candidate of the lower number goes on.

    Args:
        candidates: how many begin.
        epochs: of each rung, rising (:func:`rungs`).
        eta: at least 2.
        first: number of the first candidate.
        always: numbers that go on whatever their loss is, beside the best.

    Raises:
        ValueError: a number is out of range, or epochs do not rise.

    Example:
        >>> halving, order = Halving(4, (1, 2), eta=2), []
        >>> while job := halving.ask():
        ...     order.append((job.candidate, job.epochs))
        ...     halving.tell(job, loss=-job.candidate)
        >>> order
        [(0, 1), (1, 1), (2, 1), (3, 1), (3, 2), (2, 2)]
    """

    def __init__(
        self,
        candidates: int,
        epochs: Sequence[int],
        eta: int = 3,
        *,
        first: int = 0,
        always: Sequence[int] = (),
    ) -> None:
        self.candidates = integer("halving", "candidates", candidates)
        self._eta = integer("halving", "eta", eta, ">= 2")
        self._epochs = _rising(epochs)
        self._always = tuple(always)
        self._rung = 0
        self._waiting = list(range(first, first + candidates))
        self._losses: dict[int, float] = {}
        self._size = candidates
        #: Whether all jobs have ended.
        self.is_ended = False

    def ask(self) -> Job | None:
        """The next of the rung that is open."""
        if not self._waiting:
            return None
        return Job(self._waiting.pop(0), self._rung, self._epochs[self._rung])

    def tell(self, job: Job, loss: float) -> None:
        """The loss of a job; the last of a rung opens the next."""
        self._losses[job.candidate] = loss
        if len(self._losses) < self._size:
            return
        if self._rung + 1 == len(self._epochs):
            self.is_ended = True
            return
        ranked = _ranked(self._losses)
        going = ranked[: max(1, self._size // self._eta)]
        going += [c for c in self._always if c in ranked and c not in going]
        self._rung, self._waiting, self._size = self._rung + 1, going, len(going)
        self._waiting, self._losses = list(going), {}


class Hyperband(Schedule):
    """Hyperband: brackets of successive halving, one after another, of candidates of its own.

    Args:
        most: epochs of a whole training.
        eta: at least 2.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Hyperband(9).candidates, Hyperband(81).candidates
        (17, 143)
    """

    def __init__(self, most: int, eta: int = 3) -> None:
        self.brackets = brackets(most, eta)
        self.candidates = sum(b.candidates for b in self.brackets)
        self._eta, self._parts, self._of = eta, [], {}
        first = 0
        for number, (count, epochs) in enumerate(self.brackets):
            self._parts.append(Halving(count, epochs, eta, first=first))
            self._of |= dict.fromkeys(range(first, first + count), number)
            first += count

    def ask(self) -> Job | None:
        """The next job of the first bracket that has not ended."""
        # In order, so that a budget that ends early leaves brackets that are whole.
        number = next((n for n, p in enumerate(self._parts) if not p.is_ended), None)
        if number is None or (job := self._parts[number].ask()) is None:
            return None
        return job._replace(rung=job.rung + number)  # of all rungs: epochs tell it

    def tell(self, job: Job, loss: float) -> None:
        """The loss of a job, for its bracket."""
        number = self._of[job.candidate]
        self._parts[number].tell(job._replace(rung=job.rung - number), loss)


class Asha(Schedule):
    """Asynchronous successive halving: promote what can be promoted, else begin a new one.

    A job is the best candidate that is finished and unpromoted in the best
    ``⌊finished/eta⌋`` of its rung, the top rung first; without one, the next candidate on
    rung 0. Of equal losses the lower number is better.

    Args:
        candidates: that begin at most.
        epochs: of each rung, rising (:func:`rungs`).
        eta: at least 2.

    Raises:
        ValueError: a number is out of range, or epochs do not rise.

    Example:
        >>> asha, order = Asha(4, (1, 2), eta=2), []
        >>> while job := asha.ask():
        ...     order.append((job.candidate, job.rung))
        ...     asha.tell(job, loss=-job.candidate)
        >>> order
        [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    """

    def __init__(self, candidates: int, epochs: Sequence[int], eta: int = 3) -> None:
        self.candidates = integer("asha", "candidates", candidates)
        self._eta = integer("asha", "eta", eta, ">= 2")
        self._epochs = _rising(epochs)
        self._losses: list[dict[int, float]] = [{} for _ in self._epochs]
        self._promoted: list[set[int]] = [set() for _ in self._epochs]
        self._begun = 0

    def ask(self) -> Job | None:
        """A promotion where one is due, else a new candidate."""
        for rung in range(len(self._epochs) - 2, -1, -1):
            losses = self._losses[rung]
            best = _ranked(losses)[: len(losses) // self._eta]
            for candidate in best:
                if candidate not in self._promoted[rung]:
                    self._promoted[rung].add(candidate)
                    return Job(candidate, rung + 1, self._epochs[rung + 1])
        if self._begun == self.candidates:
            return None
        self._begun += 1
        return Job(self._begun - 1, 0, self._epochs[0])

    def tell(self, job: Job, loss: float) -> None:
        """The loss of a job; it may allow a promotion."""
        self._losses[job.rung][job.candidate] = loss


def _ranked(losses: dict[int, float]) -> list[int]:
    """Candidates from the best on; NaN is as bad as infinity."""
    return sorted(
        losses, key=lambda c: (math.inf if math.isnan(losses[c]) else losses[c], c)
    )


def _rising(epochs: Sequence[int]) -> tuple[int, ...]:
    found = tuple(integer("rungs", "epochs", e) for e in epochs)
    if not found or any(a >= b for a, b in pairwise(found)):
        raise ValueError(f"rungs(epochs={found}): must rise from rung to rung")
    return found
