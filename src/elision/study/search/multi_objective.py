"""Black-box search over choices and knobs: random points, TPE, NSGA-II.

What decomposes by layer is a knapsack, and no black box comes near to its exact answer (the
comparison is in the documentation). A black box is for what does not: a few continuous
settings, interactions of layers, two objectives that only a training tells.

* random: every point by itself, the baseline of the others;
* TPE: the tree-structured Parzen estimator (Bergstra, Bardenet, Bengio, Kégl, NeurIPS 2011;
  with several objectives Ozaki, Tanigaki, Watanabe, Onishi, GECCO 2020);
* NSGA-II (Deb, Pratap, Agarwal, Meyarivan, IEEE Trans. Evol. Comp. 6(2), 2002).

The last two are Optuna's (the extra ``search``). It keeps nothing: a search that goes on
asks it again from the first point on, and tells it what the store of trials has.
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from elision.common.checks import integer
from elision.common.extras import imported
from elision.common.names import lookup
from elision.study.search.pareto import front
from elision.study.search.space import Choice, Point, Space

__all__ = [
    "SAMPLERS",
    "Judged",
    "Nsga2Sampler",
    "RandomSampler",
    "Sampler",
    "TpeSampler",
    "feasible_front",
    "sampled",
]

#: Points of a generation of NSGA-II: Optuna's number, where the search has room for some.
_POPULATION, _GENERATIONS = 50, 5


@dataclass(frozen=True)
class Judged:
    """A point and what was found of it.

    Attributes:
        point: a value for each dimension.
        losses: the objectives, all minimised; infinite where there is no number.
        excess: by how much a budget is passed; at most 0 within it.

    Example:
        >>> Judged({"fc": "dense"}, (0.1, 2.0), excess=-1.0).is_feasible
        True
    """

    point: Point
    losses: tuple[float, ...]
    excess: float = 0.0

    @property
    def is_feasible(self) -> bool:
        """Whether the point is within its budget, and has losses that are numbers."""
        return self.excess <= 0 and all(map(math.isfinite, self.losses))


class Sampler(ABC):
    """Points to be tried, from what is known of those before; a function of its seed.

    Args:
        space: of the points.
        objectives: number of losses.
        seed: of its draws.
        count: points that it will be asked for.

    Example:
        >>> space = Space((Choice("fc", ("dense", "fp8")),))
        >>> sampler: Sampler = RandomSampler(space, 1, seed=0, count=2)
        >>> sampler.tell(Judged(sampler.ask(), (0.5,)))
    """

    def __init__(self, space: Space, objectives: int, *, seed: int, count: int) -> None:
        self.space, self.objectives, self.seed, self.count = (
            space,
            objectives,
            seed,
            count,
        )

    @abstractmethod
    def ask(self) -> Point:
        """A point; several may be asked for before the first is told."""

    @abstractmethod
    def tell(self, judged: Judged) -> None:
        """What was found of the earliest point that was not told."""


class RandomSampler(Sampler):
    """Points drawn each by itself.

    Example:
        >>> space = Space((Choice("fc", ("dense", "fp8")),))
        >>> one, two = (RandomSampler(space, 1, seed=3, count=9) for _ in range(2))
        >>> [one.ask() for _ in range(9)] == [two.ask() for _ in range(9)]
        True
    """

    def __init__(self, space: Space, objectives: int, *, seed: int, count: int) -> None:
        super().__init__(space, objectives, seed=seed, count=count)
        self._chance = random.Random(seed)

    def ask(self) -> Point:
        """A point, whatever was told."""
        return self.space.drawn(self._chance)

    def tell(self, judged: Judged) -> None:
        """Nothing is learned."""


class _OptunaSampler(Sampler):
    """A sampler of Optuna's, in memory, by ask and tell."""

    def __init__(self, space: Space, objectives: int, *, seed: int, count: int) -> None:
        super().__init__(space, objectives, seed=seed, count=count)
        optuna = _optuna(type(self).__name__)
        with _quiet(optuna):
            self._study = optuna.create_study(
                directions=["minimize"] * objectives, sampler=self._made(optuna)
            )
        self._asked: list[Any] = []

    def _made(self, optuna: Any) -> Any:
        raise NotImplementedError

    def ask(self) -> Point:
        """The sampler's next point."""
        trial = self._study.ask()
        self._asked.append(trial)
        return {d.name: _suggested(trial, d) for d in self.space.dimensions}

    def tell(self, judged: Judged) -> None:
        """Its losses, and by how much it passes the budget."""
        trial = self._asked.pop(0)
        trial.set_constraint("budget", judged.excess)
        # What is far over the budget, or diverged, has no number; Optuna takes infinity.
        self._study.tell(trial, list(judged.losses))


class TpeSampler(_OptunaSampler):
    """The tree-structured Parzen estimator of Optuna, with its settings.

    Raises:
        ModuleNotFoundError: Optuna is not installed; the message says how to.

    Example:
        >>> TpeSampler(Space((Choice("fc", ("dense",)),)), 2, seed=0, count=1).ask()
        {'fc': 'dense'}
    """

    def _made(self, optuna: Any) -> Any:
        return optuna.samplers.TPESampler(seed=self.seed)


class Nsga2Sampler(_OptunaSampler):
    """NSGA-II of Optuna; a generation is 50 points, or a fifth of the search if that is less.

    Raises:
        ModuleNotFoundError: Optuna is not installed; the message says how to.

    Example:
        >>> Nsga2Sampler(Space((Choice("fc", ("dense",)),)), 2, seed=0, count=1).ask()
        {'fc': 'dense'}
    """

    def _made(self, optuna: Any) -> Any:
        size = min(_POPULATION, max(2, self.count // _GENERATIONS))
        return optuna.samplers.NSGAIISampler(seed=self.seed, population_size=size)


#: Samplers by the names the command line knows them by.
SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "random": RandomSampler,
    "tpe": TpeSampler,
    "nsga2": Nsga2Sampler,
}


def sampled(
    space: Space,
    judge: Callable[[Sequence[Point]], Sequence[tuple[Sequence[float], float]]],
    *,
    method: str = "tpe",
    count: int = 100,
    objectives: int = 1,
    seed: int = 0,
    batch: int = 1,
) -> list[Judged]:
    """Points of a space, asked of a sampler and judged, in order.

    Args:
        space: of the points.
        judge: the losses, and the excess over a budget, of each of a few points.
        method: key of :data:`SAMPLERS`.
        count: points in all.
        objectives: number of losses.
        seed: of the sampler.
        batch: points that are asked for before the first of them is told: part of the
            answer, since a sampler then knows less. The judge may work on all of them at a
            time.

    Raises:
        ValueError: an unknown method, or a number out of range.
        ModuleNotFoundError: the method needs Optuna, which is not installed.

    Example:
        >>> from elision.study.search.space import Knob
        >>> space = Space((Knob("x", -1.0, 1.0),))
        >>> def judge(points):
        ...     return [((p["x"] ** 2,), -p["x"]) for p in points]  # x >= 0
        >>> found = sampled(space, judge, method="random", count=50)
        >>> 0 <= min(f.losses[0] for f in found if f.is_feasible) < 0.01
        True
    """
    make = lookup("search method", method, SAMPLERS)
    integer("sampled", "count", count)
    integer("sampled", "objectives", objectives)
    integer("sampled", "batch", batch)
    integer("sampled", "seed", seed, ">= 0")
    sampler = make(space, objectives, seed=seed, count=count)
    found: list[Judged] = []
    while len(found) < count:
        points = [sampler.ask() for _ in range(min(batch, count - len(found)))]
        for point, (losses, excess) in zip(points, judge(points), strict=True):
            judged = Judged(point, tuple(losses), excess)
            sampler.tell(judged)
            found.append(judged)
    return found


def feasible_front(found: Sequence[Judged]) -> list[int]:
    """Places of the points within their budget that no other such one dominates.

    Example:
        >>> over = Judged({}, (0.0, 1.0), excess=1.0)
        >>> found = [Judged({}, (1.0, 2.0)), over, Judged({}, (3.0, 1.0))]
        >>> feasible_front(found)
        [0, 2]
    """
    places = [i for i, judged in enumerate(found) if judged.is_feasible]
    return [places[i] for i in front([found[i].losses for i in places])]


def _suggested(trial: Any, dimension: Any) -> Any:
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(dimension.name, dimension.options)
    suggest = trial.suggest_int if dimension.integer else trial.suggest_float
    return suggest(dimension.name, dimension.low, dimension.high, log=dimension.log)


def _optuna(sampler: str) -> Any:
    return imported("optuna", "search", sampler)


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Optuna without its messages of studies; its level is then as it was."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
