"""Search by training: candidates of a space, by a schedule or a sampler, in one form.

A schedule (halving, Hyperband, ASHA) trains many candidates a little and few of them to the
end. A sampler (random, TPE, NSGA-II) trains each of its points as long, and chooses the
next ones from what it knows. Both answer with rows of trials, the best one, and the front
of held-out loss and cost.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from elision.common.checks import MOST_COUNT, integer, number, random_seed
from elision.common.files import without_nan
from elision.common.names import lookup
from elision.study.search.halving import Asha, Bracket, Halving, Hyperband, Job, rungs
from elision.study.search.multi_objective import SAMPLERS, sampled
from elision.study.search.pareto import front
from elision.study.search.racing import raced
from elision.study.search.space import Point, Space
from elision.study.search.trial import Trial, TrialResult
from elision.study.search.trials import Trials

__all__ = ["SCHEDULES", "Found", "Row", "by_training", "methods"]

#: Methods that train candidates further by rungs.
SCHEDULES = ("halving", "hyperband", "asha")

#: Points of a sampler that is given no number and no budget (own choice).
_COUNT = 20

#: What a person is told of each trial as it ends.
Done = Callable[["Row"], None]


def methods() -> tuple[str, ...]:
    """Names of the methods of :func:`by_training`.

    Example:
        >>> methods()
        ('halving', 'hyperband', 'asha', 'random', 'tpe', 'nsga2')
    """
    return (*SCHEDULES, *SAMPLERS)


@dataclass(frozen=True)
class Row:
    """A trial up to some epochs, as a search saw it.

    Attributes:
        number: of the candidate, or of the point.
        point: its value of each dimension.
        trial: what was trained.
        epochs: trained; 0 where the cost alone ruled it out.
        score: held-out metric; NaN where there is none.
        loss: what is minimised; infinite where there is no score.
        cost: of the candidate.
        is_feasible: whether the cost is within the limit.

    Example:
        >>> from elision.workloads import find_workload
        >>> trial = Trial(workload=find_workload("digits-cnn"))
        >>> Row(0, {"lr": 0.1}, trial, 3, 0.9, -0.9, 0.5, True).plain()["score"]
        0.9
    """

    number: int
    point: Point
    trial: Trial
    epochs: int
    score: float
    loss: float
    cost: float
    is_feasible: bool

    def plain(self) -> dict[str, Any]:
        """Plain values, with None for NaN and infinities."""
        return without_nan(
            {
                "number": self.number,
                **self.point,
                "recipe": self.trial.label,
                "epochs": self.epochs,
                "score": self.score,
                "cost": self.cost,
                "feasible": self.is_feasible,
                "trial": self.trial.key,
            }
        )


@dataclass(frozen=True)
class Found:
    """What a search by training came to.

    Attributes:
        method: of :func:`methods`.
        rows: the trials in the order in which the method knew them.
        full_trainings: whole trainings that they took.
        epochs: of a whole training.

    Example:
        >>> Found("random", (), 0.0, 5).best is None
        True
    """

    method: str
    rows: tuple[Row, ...]
    full_trainings: float
    epochs: int

    @property
    def furthest(self) -> list[Row]:
        """The rows of most epochs that are within the limit: those that compare."""
        trained = [r for r in self.rows if r.is_feasible and r.epochs]
        most = max((r.epochs for r in trained), default=0)
        return [r for r in trained if r.epochs == most]

    @property
    def best(self) -> Row | None:
        """The row of the smallest loss among them; None where nothing was trained."""
        rows = [r for r in self.furthest if math.isfinite(r.loss)]
        return min(rows, key=lambda r: (r.loss, r.cost, r.number), default=None)

    @property
    def front(self) -> list[Row]:
        """Those of them that no other beats in both loss and cost, cheapest last."""
        rows = [r for r in self.furthest if math.isfinite(r.loss)]
        return [rows[i] for i in front([(r.loss, r.cost) for r in rows])]

    def summary(self) -> dict[str, Any]:
        """Plain values; the same for any number of processes and of interruptions."""
        best = self.best
        return {
            "method": self.method,
            "epochs": self.epochs,
            "full_trainings": self.full_trainings,
            "best": None if best is None else best.plain(),
            "front": [row.plain() for row in self.front],
            "trials": [row.plain() for row in self.rows],
        }


def by_training(
    space: Space,
    make: Callable[[Point], Trial],
    trials: Trials,
    pool: Executor,
    *,
    method: str = "halving",
    count: int | None = None,
    full_trainings: float | None = None,
    cost: Callable[[Trial], float] | None = None,
    limit: float | None = None,
    epochs: int | None = None,
    eta: int | None = None,
    seed: int = 0,
    slots: int = 4,
    done: Done | None = None,
) -> Found:
    """Search a space by real trainings; what the store of trials has is read.

    Args:
        space: of the candidates.
        make: the trial of a point; all trials have one length.
        trials: the store.
        pool: executor that trains (:func:`elision.common.workers.pool`).
        method: a schedule (``"halving"``, ``"hyperband"``, ``"asha"``) over points drawn
            from the space, or a sampler (``"random"``, ``"tpe"``, ``"nsga2"``).
        count: candidates that begin, or points; Hyperband has its own number. None: as many
            as ``full_trainings`` allows, or without it the first rung of a single winner,
            and 20 points.
        full_trainings: whole trainings that may be spent. Hyperband and ASHA end where the
            next job would pass it; None: no bound.
        cost: of a trial, known before it is trained; what is over the limit then is not
            trained. None: the share of the multiply-accumulates that was done.
        limit: most that the cost may be; None: any.
        epochs: that a sampler trains each point; None: to the end.
        eta: factor of a schedule; None: 3.
        seed: of the points.
        slots: trials that are under way at a time, of ASHA and of samplers: part of the
            answer, unlike the number of processes that train.
        done: called with each row in their order.

    Raises:
        ValueError: an unknown method, a number out of range, an argument that the method
            does not have, a budget that is too small for the method (says the least), or a
            limit that no candidate meets.
        ModuleNotFoundError: the method needs Optuna, which is not installed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from elision.common.workers import pool
        >>> from elision.study.search.space import Knob
        >>> from elision.workloads import Workload
        >>> small = Workload(name="small", dataset="digits", model="mlp", epochs=3,
        ...                  batch_size=16, train_images=320,
        ...                  model_options={"width": 16})
        >>> space = Space((Knob("lr", 1e-4, 0.3, log=True),))
        >>> def make(point):
        ...     return Trial(workload=small.changed(lr=point["lr"]))
        >>> with tempfile.TemporaryDirectory() as folder, pool(1) as here:
        ...     found = by_training(space, make, Trials(Path(folder)), here, count=6)
        >>> found.best.point["lr"] > 0.001, [r.epochs for r in found.rows][-2:]
        (True, [3, 3])
    """
    lookup("search method", method, dict.fromkeys(methods()))
    random_seed("search", "seed", seed)
    if limit is not None:
        number("search", "limit", limit, "(-inf, inf)")
    search = _Search(space, make, trials, pool, cost, limit, slots, seed, done)
    if method in SCHEDULES:
        if epochs is not None:
            raise ValueError(f"search(epochs={epochs}): {method} has epochs of its own")
        rows = search.scheduled(method, count, full_trainings, eta or 3)
    else:
        if eta is not None:
            raise ValueError(f"search(eta={eta}): {method} has no rungs")
        rows = search.sampled(method, count, full_trainings, epochs)
    if rows and not any(row.is_feasible for row in rows):
        raise _none_within(limit, [row.cost for row in rows])
    reached: dict[str, int] = {}
    for row in rows:
        reached[row.trial.key] = max(row.epochs, reached.get(row.trial.key, 0))
    whole = rows[0].trial.epochs
    return Found(method, tuple(rows), sum(reached.values()) / whole, whole)


@dataclass(frozen=True)
class _Search:
    """What all methods share."""

    space: Space
    make: Callable[[Point], Trial]
    trials: Trials
    pool: Executor
    cost: Callable[[Trial], float] | None
    limit: float | None
    slots: int
    seed: int
    done: Done | None

    def scheduled(
        self, method: str, count: int | None, full_trainings: float | None, eta: int
    ) -> list[Row]:
        """Rows of a schedule's jobs."""
        if method == "hyperband" and count is not None:
            raise ValueError(f"search(count={count}): hyperband has its own number")
        whole = self.make(self.space.points(1, self.seed)[0]).epochs
        epochs = rungs(whole, eta)
        if method == "hyperband":
            wanted = Hyperband(whole, eta).candidates
        else:
            wanted = _candidates(method, count, full_trainings, epochs, eta)
        points, made = self._within(wanted)
        schedules = {
            "halving": lambda: Halving(len(points), epochs, eta),
            "asha": lambda: Asha(len(points), epochs, eta),
            "hyperband": lambda: Hyperband(whole, eta),
        }
        if method == "hyperband" and len(points) < wanted:
            raise ValueError(
                f"search: hyperband begins with {wanted} candidates, the space has "
                f"{len(points)} within the limit; use halving"
            )
        rows: list[Row] = []

        def done(job: Job, result: TrialResult) -> None:
            row = self._row(
                job.candidate, points[job.candidate], made[job.candidate], result
            )
            rows.append(row)
            if self.done is not None:
                self.done(row)

        raced(
            made,
            schedules[method](),
            self.trials,
            self.pool,
            slots=self.slots if method == "asha" else None,
            budget=full_trainings,
            loss=self._loss,
            done=done,
        )
        if not rows:
            raise ValueError(
                f"search(full_trainings={full_trainings}): the first trial takes "
                f"{epochs[0] / whole:.3g}"
            )
        return rows

    def _within(self, count: int) -> tuple[list[Point], list[Trial]]:
        """Points whose cost is within the limit as far as it is known, and their trials."""
        # Where most points cost too much, more are drawn than are kept.
        drawn = self.space.points(count, self.seed)
        if self.cost is not None and self.limit is not None:
            drawn = self.space.points(count * _DRAWN, self.seed)
        made = [(point, self.make(point)) for point in drawn]
        kept = [pair for pair in made if not self._is_over(pair[1])][:count]
        if not kept:
            assert self.cost is not None
            raise _none_within(self.limit, [self.cost(trial) for _, trial in made])
        return [point for point, _ in kept], [trial for _, trial in kept]

    def _is_over(self, trial: Trial) -> bool:
        return self.cost is not None and self._excess(self.cost(trial)) > 0

    def sampled(
        self,
        method: str,
        count: int | None,
        full_trainings: float | None,
        epochs: int | None,
    ) -> list[Row]:
        """Rows of a sampler's points."""
        whole = self.make(self.space.points(1, self.seed)[0]).epochs
        each = whole if epochs is None else integer("search", "epochs", epochs)
        if full_trainings is not None:
            number("search", "full_trainings", full_trainings, "> 0")
            fitting = int(full_trainings * whole / each + 1e-9)
            if (count or 1) > fitting:
                raise ValueError(
                    f"search(full_trainings={full_trainings}): {count or 1} points of "
                    f"{each} epochs take {(count or 1) * each / whole:.3g}"
                )
            count = count or fitting
        rows: list[Row] = []

        def judge(points: Sequence[Point]) -> list[tuple[tuple[float, float], float]]:
            found = self._judged(len(rows), points, each)
            rows.extend(found)
            return [((row.loss, row.cost), self._excess(row.cost)) for row in found]

        sampled(
            self.space,
            judge,
            method=method,
            count=count or _COUNT,
            objectives=2,
            seed=self.seed,
            batch=self.slots,
        )
        return rows

    def _judged(self, first: int, points: Sequence[Point], epochs: int) -> list[Row]:
        made = [self.make(point) for point in points]
        # One trial that is asked for twice is trained once.
        futures = {
            trial.key: self.trials.submit(self.pool, trial, epochs)
            for trial in {t.key: t for t in made if not self._is_over(t)}.values()
        }
        rows: list[Row] = []
        for number_, (point, trial) in enumerate(zip(points, made, strict=True), first):
            future = futures.get(trial.key)
            row = self._row(number_, point, trial, future and future.result())
            rows.append(row)
            if self.done is not None:
                self.done(row)
        return rows

    def _excess(self, cost: float) -> float:
        return 0.0 if self.limit is None else cost - self.limit

    def _loss(self, trial: Trial, result: TrialResult) -> float:
        """What a schedule minimises: none goes on whose measured cost is over the limit."""
        cost = result.macs_ratio if self.cost is None else self.cost(trial)
        return trial.loss(result) if self._excess(cost) <= 0 else math.inf

    def _row(
        self, number_: int, point: Point, trial: Trial, result: TrialResult | None
    ) -> Row:
        if self.cost is not None:
            cost = self.cost(trial)
        else:
            assert result is not None
            cost = result.macs_ratio
        return Row(
            number=number_,
            point=point,
            trial=trial,
            epochs=0 if result is None else result.epochs,
            score=math.nan if result is None else result.score,
            loss=math.inf if result is None else trial.loss(result),
            cost=cost,
            is_feasible=self._excess(cost) <= 0,
        )


def _none_within(limit: float | None, costs: Sequence[float]) -> ValueError:
    return ValueError(
        f"search(limit={limit}): the least cost of {len(costs)} candidates is "
        f"{min(costs):.6g}"
    )


#: Points drawn for each that is kept, where some cost too much (own choice).
_DRAWN = 20


def _candidates(
    method: str,
    count: int | None,
    full_trainings: float | None,
    epochs: Sequence[int],
    eta: int,
) -> int:
    """How many candidates begin a halving, or are there for ASHA."""
    if count is not None:
        integer("search", "count", count, f"[1, {MOST_COUNT}]")
    single = eta ** (len(epochs) - 1)
    if full_trainings is None:
        return count or single
    left = number("search", "full_trainings", full_trainings, "> 0") * epochs[-1] + 1e-9

    def taken(n: int) -> int:
        return Bracket(n, tuple(epochs)).cost(eta)

    if method == "asha":  # it ends where the budget does
        return count or max(1, int(left // epochs[0]))
    if taken(count or 1) > left:
        raise ValueError(
            f"search(full_trainings={full_trainings}): a halving of {count or 1} candidates "
            f"takes {taken(count or 1) / epochs[-1]:.3g}"
        )
    if count is None:
        count = 1
        while taken(count + 1) <= left:
            count += 1
    return count
