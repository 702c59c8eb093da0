"""Who is trained further: published brackets, ASHA's oracle, answers without a machine."""

import itertools
import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.study.search.halving import (
    Asha,
    Bracket,
    Halving,
    Hyperband,
    Job,
    Schedule,
    brackets,
    rungs,
)
from elision.study.search.racing import Ended, best_of, race


def told(losses: Callable[[Job], float]) -> Callable[[Job], Callable[[], float]]:
    """What starts jobs whose losses a table gives."""
    return lambda job: lambda: losses(job)


def test_brackets_of_hyperband_are_the_published_ones() -> None:
    found = brackets(81, eta=3)
    assert [(b.candidates, b.epochs[0]) for b in found] == [
        (81, 1),
        (34, 3),
        (15, 9),
        (8, 27),
        (5, 81),
    ]
    costs = [b.cost(3, continued=False) for b in found]
    assert costs == [405, 363, 351, 378, 405]
    assert sum(costs) == 1902
    assert Hyperband(81).candidates == 143


@given(st.integers(1, 30), st.integers(2, 4))
def test_hyperband_trains_what_its_brackets_say(most: int, eta: int) -> None:
    ended = race(Hyperband(most, eta), told(lambda job: job.candidate % 7))
    found = brackets(most, eta)
    again = sum(e.job.epochs for e in ended)
    assert again == sum(b.cost(eta, continued=False) for b in found)
    reached: dict[int, int] = {}
    epochs_of_rung: dict[int, int] = {}
    trained = 0
    for job in (e.job for e in ended):
        trained += job.epochs - reached.get(job.candidate, 0)
        reached[job.candidate] = job.epochs
        assert epochs_of_rung.setdefault(job.rung, job.epochs) == job.epochs
    assert trained == sum(b.cost(eta) for b in found)
    assert len(reached) == sum(b.candidates for b in found)
    assert max(reached.values()) == most


#: Losses at rungs 0, 1, 2 of nine configurations, and the jobs that follow, by hand.
LOSSES = (
    (5, 4, 3),
    (3, 3, 3),
    (4, 2, 1),
    (1, 1.5, 2),
    (6, 5, 4),
    (2, 2.5, 2.5),
    (7, 6, 5),
    (8, 7, 6),
    (9, 8, 7),
)
ORDER = "0.0 1.0 2.0 1.1 3.0 3.1 4.0 5.0 5.1 3.2 6.0 7.0 8.0"


def test_asha_gives_the_jobs_of_the_oracle() -> None:
    ended = race(
        Asha(9, (1, 3, 9)),
        told(lambda job: LOSSES[job.candidate][job.rung]),
        slots=1,
    )
    assert " ".join(f"{e.job.candidate}.{e.job.rung}" for e in ended) == ORDER
    assert best_of(ended).job == Job(3, 2, 9)  # 2, best in the end, is never promoted


def slow_asha(losses: Sequence[Sequence[float]], eta: int) -> list[tuple[int, int]]:
    """One worker's jobs by the rule as it is written, over lists of all that is done."""
    done: list[tuple[int, int]] = []
    top = len(losses[0]) - 1
    while True:
        for rung in range(top - 1, -1, -1):
            of_rung = sorted((losses[c][rung], c) for c, r in done if r == rung)
            going = [c for _, c in of_rung[: len(of_rung) // eta]]
            if left := [c for c in going if (c, rung + 1) not in done]:
                done.append((left[0], rung + 1))
                break
        else:
            begun = sum(r == 0 for _, r in done)
            if begun == len(losses):
                return done
            done.append((begun, 0))


@given(st.integers(2, 4), st.integers(1, 3), st.randoms(use_true_random=False))
def test_asha_is_its_rule(eta: int, top: int, chance: random.Random) -> None:
    losses = [
        tuple(chance.randint(0, 6) for _ in range(top + 1))
        for _ in range(chance.randint(1, 20))
    ]
    schedule = Asha(len(losses), [eta**k for k in range(top + 1)], eta)
    ended = race(schedule, told(lambda job: losses[job.candidate][job.rung]), slots=1)
    assert [(e.job.candidate, e.job.rung) for e in ended] == slow_asha(losses, eta)


@given(st.permutations(range(9)), st.integers(1, 9))
def test_halving_keeps_the_best_whatever_is_under_way(
    ranks: list[int], slots: int
) -> None:
    ended = race(
        Halving(9, (1, 3, 9)), told(lambda job: ranks[job.candidate]), slots=slots
    )
    by_rung = [
        {ranks[e.job.candidate] for e in ended if e.job.rung == rung}
        for rung in range(3)
    ]
    assert by_rung == [set(range(9)), {0, 1, 2}, {0}]
    assert best_of(ended).job.candidate == ranks.index(0)


def test_halving_at_its_edges() -> None:
    lost = race(Halving(5, (1, 2), eta=3), told(lambda job: math.nan))
    assert [e.job.candidate for e in lost] == [0, 1, 2, 3, 4, 0]  # somebody goes on
    kept = race(
        Halving(4, (1, 2, 4), eta=4, always=(3,)), told(lambda j: float(j.candidate))
    )
    assert {e.job.candidate for e in kept if e.job.rung == 2} == {0, 3}
    assert Bracket(5, (1, 3, 9)).sizes(3) == [5, 1, 1]


@pytest.mark.parametrize("make", [lambda: Asha(12, (1, 2, 4), 2), lambda: Hyperband(9)])
def test_a_budget_ends_a_race_and_is_met(make: Callable[[], Schedule]) -> None:
    rising = told(lambda job: float(job.candidate))
    for budget in (0.5, 1.0, 2.25):
        ended = race(make(), rising, slots=3, budget=budget, whole=4)
        reached: dict[int, int] = {}
        for job in (e.job for e in ended):
            reached[job.candidate] = max(job.epochs, reached.get(job.candidate, 0))
        assert sum(reached.values()) <= budget * 4
        assert sum(reached.values()) > budget * 4 - 9
    with pytest.raises(ValueError, match="spent before the first job"):
        best_of(race(make(), rising, budget=0.1, whole=4))


def test_the_clock_says_which_job_ends_first() -> None:
    # 0 begins with three epochs, 1 and 2 with one each: both end while 0 is under way.
    class Unequal(Schedule):
        candidates = 3

        def __init__(self) -> None:
            self.jobs = [Job(0, 0, 3), Job(1, 0, 1), Job(2, 0, 1)]
            self.heard: list[int] = []

        def ask(self) -> Job | None:
            return self.jobs.pop(0) if self.jobs else None

        def tell(self, job: Job, loss: float) -> None:
            self.heard.append(job.candidate)

    for slots, order in ((1, [0, 1, 2]), (2, [1, 2, 0]), (3, [1, 2, 0])):
        schedule = Unequal()
        race(schedule, told(lambda job: 0.0), slots=slots)
        assert schedule.heard == order


def test_wrong_numbers_are_refused() -> None:
    for call, message in (
        (lambda: rungs(9, eta=1), r"rungs\(eta=1\): must be an integer >= 2"),
        (
            lambda: rungs(9, least=10),
            r"rungs\(least=10\): must be an integer in \[1, 9",
        ),
        (lambda: Halving(0, (1,)), r"halving\(candidates=0\)"),
        (lambda: Asha(3, (1, 1)), r"rungs\(epochs=\(1, 1\)\): must rise"),
        (
            lambda: race(Halving(1, (1,)), told(lambda j: 0), slots=0),
            r"race\(slots=0\)",
        ),
        (lambda: race(Halving(1, (1,)), told(lambda j: 0), budget=1), r"race\(whole="),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_best_is_of_those_trained_furthest() -> None:
    ended = [Ended(Job(c, r, 3**r), loss) for c, r, loss in ((0, 0, 0.1), (1, 1, 0.5))]
    ended.append(Ended(Job(2, 1, 3), 0.5))
    for order in itertools.permutations(ended):
        assert best_of(order).job.candidate == 1
