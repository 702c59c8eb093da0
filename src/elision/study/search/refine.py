"""Refinement of an assignment by real trainings: its neighbours raced against it.

A knapsack's answer is exact for losses that were predicted layer by layer. Where layers
interact, an assignment near it may train better. The neighbours are those in which one
layer or two choose otherwise within the same budgets (one layer up, another down, say), from
the least predicted loss on. They race by successive halving (:mod:`.halving`) on held-out
training examples. The search is elitist: the assignment it began with is trained to the
end beside them and stays the answer until a neighbour trained as long beats it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from elision.common.checks import integer, number
from elision.study.search.halving import Halving, Job, rungs
from elision.study.search.racing import Raced, raced
from elision.study.search.trial import Trial, TrialResult
from elision.study.search.trials import Trials

__all__ = ["Refined", "neighbours", "refined"]

#: A budget that is met but for rounding is met; as in a knapsack.
_ROOM = 1 + 1e-9

#: Sums that differ by less are equal but for rounding.
_TIE = 1e-9

Classes = Sequence[Sequence[float]]
Assignment = tuple[int, ...]


def neighbours(
    costs: Classes | Mapping[str, Classes],
    losses: Classes,
    choice: Sequence[int],
    budget: float | Mapping[str, float],
    count: int,
    *,
    taken: Sequence[Sequence[int]] = (),
) -> list[Assignment]:
    """Assignments within the budgets that differ in one layer or two, the best ones.

    Args:
        costs: of each layer, that of each choice; or several kinds of cost by name.
        losses: of each layer, the predicted loss of each choice.
        choice: index of a choice for each layer: where the neighbours are.
        budget: most that the costs may sum to; of each kind where there are several.
        count: how many are returned at most.
        taken: assignments that are left out, beside ``choice`` itself.

    Returns:
        The neighbours of least summed loss; of equal losses those of the first choices.

    Raises:
        ValueError: a number is out of range, or lists of different lengths.

    Example:
        >>> losses = [(0, 1, 6), (0, 2, 3), (0, 0.5, 4)]
        >>> costs = [(8, 4, 2), (16, 8, 4), (8, 4, 2)]
        >>> neighbours(costs, losses, [1, 0, 1], 24, count=3)
        [(0, 1, 1), (1, 1, 0), (0, 2, 1)]
    """
    integer("neighbours", "count", count, ">= 0")
    kinds = costs if isinstance(costs, Mapping) else {"cost": costs}
    budgets = budget if isinstance(budget, Mapping) else {"cost": budget}
    if len({len(choice), len(losses), *map(len, kinds.values())}) > 1:
        raise ValueError(
            f"neighbours: {len(losses)} layers' losses, {len(choice)} choices and costs of "
            f"{', '.join(str(len(c)) for c in kinds.values())} layers"
        )
    here = tuple(choice)
    moves = [
        (layer, option)
        for layer, row in enumerate(losses)
        for option in range(len(row))
        if option != here[layer]
    ]
    lost = _changes(moves, losses, here)
    paid = {kind: _changes(moves, of, here) for kind, of in kinds.items()}
    left = {
        kind: budgets[kind] * _ROOM - math.fsum(map(_at, of, here))
        for kind, of in kinds.items()
    }
    layers = np.array([layer for layer, _ in moves])
    # Two moves of one layer are none; a move beside itself is that move alone.
    first, second = np.triu_indices(len(moves))
    alone = first == second
    is_one = alone | (layers[first] != layers[second])
    for kind, change in paid.items():
        is_one &= change[first] + np.where(alone, 0.0, change[second]) <= left[kind]
    first, second, alone = first[is_one], second[is_one], alone[is_one]
    loss = lost[first] + np.where(alone, 0.0, lost[second])
    seen = {here, *map(tuple, taken)}
    wanted = min(count + len(seen), len(loss))
    if not count or not wanted:
        return []
    # All that are as good as the last one wanted, so that equal ones have an order.
    bar = np.partition(loss, wanted - 1)[wanted - 1]
    near = np.flatnonzero(loss <= bar + _TIE * max(1.0, np.abs(lost).max()))
    found = {_moved(here, moves[first[i]], moves[second[i]]) for i in near} - seen
    return sorted(found, key=lambda c: (math.fsum(map(_at, losses, c)), c))[:count]


def _at(row: Sequence[float], option: int) -> float:
    return row[option]


def _changes(
    moves: Sequence[tuple[int, int]], of: Classes, here: Assignment
) -> np.ndarray:
    """What each move adds to a sum over layers."""
    return np.array([of[layer][o] - of[layer][here[layer]] for layer, o in moves])


def _moved(here: Assignment, *moves: tuple[int, int]) -> Assignment:
    found = list(here)
    for layer, option in moves:
        found[layer] = option
    return tuple(found)


@dataclass(frozen=True)
class Refined:
    """An assignment, and the races that it comes from.

    Attributes:
        choice: index of a choice for each layer.
        trial: of the assignment.
        result: of its training to the end.
        began: the result of the assignment that the refinement began with.
        full_trainings: whole trainings that the races took, what the store had included.
        races: one for each round.
        assignments: those of the candidates of each round.

    Example:
        >>> from elision.workloads import find_workload
        >>> trial = Trial(workload=find_workload("digits-cnn"))
        >>> result = TrialResult((0.25,) * 3, (2.0,) * 3, 54, 3420, 1e6, 1e6)
        >>> Refined((0, 1), trial, result, result, 1.0, (), ()).rows()  # no neighbour
        []
    """

    choice: Assignment
    trial: Trial
    result: TrialResult
    began: TrialResult
    full_trainings: float
    races: tuple[Raced, ...]
    assignments: tuple[tuple[Assignment, ...], ...]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each job of each round, with the assignment that was trained."""
        return [
            {"round": number, "choice": among[row["candidate"]], **row}
            for number, (race, among) in enumerate(
                zip(self.races, self.assignments, strict=True)
            )
            for row in race.rows()
        ]


def refined(
    costs: Classes | Mapping[str, Classes],
    losses: Classes,
    choice: Sequence[int],
    budget: float | Mapping[str, float],
    make: Callable[[Assignment], Trial],
    trials: Trials,
    pool: Executor,
    *,
    count: int = 8,
    beside: Sequence[Sequence[int]] = (),
    rounds: int = 1,
    full_trainings: float = 3.0,
    eta: int = 3,
    done: Callable[[Job, TrialResult], None] | None = None,
) -> Refined:
    """Race an assignment with its neighbours, and go on from the winner.

    Args:
        costs: of each layer, that of each choice; or several kinds of cost by name.
        losses: of each layer, the predicted loss of each choice.
        choice: the assignment that it begins with, such as a knapsack's.
        budget: most that the costs may sum to; of each kind where there are several.
        make: the trial of an assignment; all trials have one length.
        trials: the store.
        pool: executor that trains (:func:`elision.common.workers.pool`).
        count: neighbours of a round at most; fewer where ``full_trainings`` says so.
        beside: further assignments of the first round, whatever they cost: those of other
            predictions, for example.
        rounds: at most; a round in which nobody beats the assignment is the last.
        full_trainings: whole trainings that all rounds may take.
        eta: factor of the halving.
        done: called with each job and its result.

    Raises:
        ValueError: a number is out of range, or ``full_trainings`` is not enough for the
            assignment and one neighbour (says how many are).

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from elision.common.workers import pool
        >>> from elision.workloads import Workload
        >>> small = Workload(name="small", dataset="digits", model="mlp", epochs=3,
        ...                  batch_size=16, train_images=320,
        ...                  model_options={"width": 16})
        >>> rates = (0.05, 0.001)
        >>> def make(choice):
        ...     return Trial(workload=small.changed(lr=rates[choice[0]]))
        >>> with tempfile.TemporaryDirectory() as folder, pool(1) as here:
        ...     found = refined([(1, 1)], [(0, 0)], [1], 1, make, Trials(Path(folder)), here)
        >>> found.choice, found.result.score > found.began.score
        ((0,), True)
    """
    integer("refined", "rounds", rounds)
    integer("refined", "count", count)
    left = number("refined", "full_trainings", full_trainings, "> 0")
    here = tuple(choice)
    whole = make(here).epochs
    epochs = rungs(whole, eta)
    first = list(dict.fromkeys(map(tuple, beside)))
    raced_ones: dict[Assignment, None] = {here: None}
    races: list[Raced] = []
    among: list[tuple[Assignment, ...]] = []
    for round_ in range(rounds):
        others = [c for c in first if c not in raced_ones] if round_ == 0 else []
        others += neighbours(
            costs, losses, here, budget, count, taken=[*raced_ones, *others]
        )
        fitting = [
            n
            for n in range(len(others), 0, -1)
            if _epochs(n, epochs, eta) <= left * whole
        ]
        if not fitting:
            if round_ or not others:
                break
            raise ValueError(
                f"refined(full_trainings={full_trainings}): the assignment and one neighbour "
                f"take {_epochs(1, epochs, eta) / whole:.3g}"
            )
        candidates = (here, *others[: fitting[0]])
        raced_ones |= dict.fromkeys(candidates)
        race = raced(
            [make(c) for c in candidates],
            Halving(len(candidates), epochs, eta, always=(0,)),
            trials,
            pool,
            done=done,
        )
        left -= _trained(race) / whole
        races.append(race)
        among.append(candidates)
        if race.best == 0:
            break
        here = candidates[race.best]
    trial = make(here)
    began = trials.result(make(tuple(choice)), whole)
    return Refined(
        here,
        trial,
        trials.result(trial, whole),
        began,
        full_trainings - left,
        tuple(races),
        tuple(among),
    )


def _epochs(others: int, epochs: Sequence[int], eta: int) -> int:
    """Most epochs that a race of so many takes, the assignment itself beside them."""
    size, before, total = others + 1, 0, 0
    for rung in epochs:
        total += size * (rung - before)
        # The assignment goes on beside the best where it is none of them.
        size, before = min(size, max(1, size // eta) + 1), rung
    return total


def _trained(race: Raced) -> int:
    """Epochs of a race."""
    reached: dict[int, int] = {}
    for ended in race.ended:
        reached[ended.job.candidate] = ended.job.epochs
    return sum(reached.values())
