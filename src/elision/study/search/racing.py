"""Racing: the jobs of a schedule, trained by processes, with the answer of one process.

A schedule that waits for nobody (ASHA) asks for its next job when one ends, and which one
ends first depends on the machine. Here it is a clock of its own that says so: a job takes
as many ticks as it trains epochs, and ``slots`` jobs are under way at a time. Decisions
follow from that clock and from the losses. So the answer is that of a cluster of ``slots``
equal machines, whatever trains the jobs really: one process after another, or as many as
there are slots. The price is that a process may wait for one that the clock has earlier.
"""

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from elision.common.checks import integer, number
from elision.study.search.halving import Job, Schedule
from elision.study.search.trial import Trial, TrialResult
from elision.study.search.trials import Trials

__all__ = ["Ended", "Raced", "best_of", "race", "raced"]

#: A job is within a budget that it meets but for rounding.
_ROOM = 1e-9


@dataclass(frozen=True)
class Ended:
    """A job and its loss.

    Attributes:
        job: who was trained, up to how many epochs.
        loss: infinite where the training diverged.

    Example:
        >>> Ended(Job(0, 0, 1), loss=0.5).loss
        0.5
    """

    job: Job
    loss: float


def race(
    schedule: Schedule,
    start: Callable[[Job], Callable[[], float]],
    *,
    slots: int | None = None,
    budget: float | None = None,
    whole: int | None = None,
) -> list[Ended]:
    """Run the jobs of a schedule to its end, or to that of its budget.

    Args:
        schedule: asked for jobs, and told their losses in the order of its clock.
        start: begins a job, and returns what waits for its loss.
        slots: jobs that are under way at a time, part of the answer of a schedule that
            waits for nobody; None: as many as it has.
        budget: whole trainings that may be spent; a job that would pass it ends the race.
        whole: epochs of a whole training; needed where there is a budget.

    Returns:
        The jobs in the order in which they ended by the clock.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> from elision.study.search.halving import Halving
        >>> def start(job):
        ...     return lambda: float(job.candidate == 0)
        >>> [e.job.candidate for e in race(Halving(3, (1, 3)), start)]
        [0, 1, 2, 1]
    """
    if slots is not None:
        integer("race", "slots", slots)
    left = float("inf")
    if budget is not None:
        whole = integer("race", "whole", whole)
        left = number("race", "budget", budget, "> 0") * whole + _ROOM
    reached: dict[int, int] = {}
    under_way: list[tuple[int, int, Job, Callable[[], float]]] = []
    ended: list[Ended] = []
    clock = begun = 0
    is_open = True
    while True:
        while is_open and (slots is None or len(under_way) < slots):
            job = schedule.ask()
            if job is None:
                break
            ticks = job.epochs - reached.get(job.candidate, 0)
            if ticks > left:
                is_open = False
                break
            left -= ticks
            reached[job.candidate] = job.epochs
            heapq.heappush(under_way, (clock + ticks, begun, job, start(job)))
            begun += 1
        if not under_way:
            return ended
        clock, _, job, loss_of = heapq.heappop(under_way)
        ended.append(Ended(job, loss_of()))
        schedule.tell(job, ended[-1].loss)


def best_of(ended: Sequence[Ended]) -> Ended:
    """The job of the smallest loss among those of the most epochs.

    Losses after fewer epochs are another quantity. Of equal losses the candidate of the
    lower number wins.

    Raises:
        ValueError: no job ended.

    Example:
        >>> best_of([Ended(Job(0, 0, 1), 0.1), Ended(Job(1, 1, 3), 0.2)]).job.candidate
        1
    """
    if not ended:
        raise ValueError("race: the budget is spent before the first job")
    most = max(e.job.epochs for e in ended)
    return min(
        (e for e in ended if e.job.epochs == most),
        key=lambda e: (e.loss, e.job.candidate),
    )


@dataclass(frozen=True)
class Raced:
    """A race of trials.

    Attributes:
        candidates: the trials that could begin, by number.
        ended: the jobs that were trained, in the order of the clock.
        results: of the jobs, in the same order.

    Example:
        >>> from elision.workloads import find_workload
        >>> trial = Trial(workload=find_workload("digits-cnn"))
        >>> result = TrialResult((0.25,), (2.0,), 18, 1140, 1e6, 1e6)
        >>> found = Raced([trial], [Ended(Job(0, 0, 1), -0.25)], [result])
        >>> found.best, found.rows()[0]["score"]
        (0, 0.25)
    """

    candidates: Sequence[Trial]
    ended: Sequence[Ended]
    results: Sequence[TrialResult]

    @property
    def best(self) -> int:
        """Number of the candidate that won (:func:`best_of`)."""
        return best_of(self.ended).job.candidate

    def rows(self) -> list[dict[str, Any]]:
        """A row for each job: candidate, recipe, rung, epochs, score and work."""
        return [
            {
                "candidate": e.job.candidate,
                "recipe": self.candidates[e.job.candidate].label,
                "rung": e.job.rung,
                "epochs": e.job.epochs,
                "score": result.score,
                "loss": e.loss,
                "macs_ratio": result.macs_ratio,
                "key": self.candidates[e.job.candidate].key,
            }
            for e, result in zip(self.ended, self.results, strict=True)
        ]


def raced(
    candidates: Sequence[Trial],
    schedule: Schedule,
    trials: Trials,
    pool: Executor,
    *,
    slots: int | None = None,
    budget: float | None = None,
    loss: Callable[[Trial, TrialResult], float] = Trial.loss,
    done: Callable[[Job, TrialResult], None] | None = None,
) -> Raced:
    """Race trials by a schedule; what the store has is read.

    Args:
        candidates: the trials, at least as many as the schedule's candidates that begin.
        schedule: of halving, Hyperband or ASHA; its epochs are those of the trials.
        trials: the store.
        pool: executor that trains (:func:`elision.common.workers.pool`).
        slots: jobs under way at a time, as for :func:`race`.
        budget: whole trainings that may be spent.
        loss: what is minimised; by default the held-out metric.
        done: called with each job and its result, in the order of the clock.

    Raises:
        ValueError: there are fewer trials than the schedule has candidates, trials of
            different lengths under a budget, or a number out of range.
    """
    if len(candidates) < schedule.candidates:
        raise ValueError(
            f"race: the schedule begins with {schedule.candidates} candidates, there are "
            f"{len(candidates)}"
        )
    lengths = {trial.epochs for trial in candidates}
    if budget is not None and len(lengths) > 1:
        raise ValueError(
            f"race: a budget in whole trainings needs trials of one length, got {lengths}"
        )
    results: dict[Job, TrialResult] = {}

    def start(job: Job) -> Callable[[], float]:
        trial = candidates[job.candidate]
        future = trials.submit(pool, trial, job.epochs)

        def ended_with() -> float:
            results[job] = future.result()
            if done is not None:
                done(job, results[job])
            return loss(trial, results[job])

        return ended_with

    ended = race(
        schedule,
        start,
        slots=slots,
        budget=budget,
        whole=max(lengths) if budget is not None else None,
    )
    return Raced(candidates, ended, [results[e.job] for e in ended])
