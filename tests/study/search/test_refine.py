"""Neighbours of an assignment against all assignments; a race that keeps what it has."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.common.workers import pool
from elision.study.search.refine import neighbours, refined
from elision.study.search.trial import Trial
from elision.study.search.trials import Trials
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=3,
    batch_size=16,
    train_images=320,
    model_options={"width": 16},
)
#: Rates of two "layers": their product is the learning rate.
RATES = ((1.0, 0.1), (0.1, 0.001, 0.03))


def made(choice: tuple[int, ...]) -> Trial:
    rate = RATES[0][choice[0]] * RATES[1][choice[1]]
    return Trial(workload=SMALL.changed(lr=rate, name="small"))


NUMBERS = st.integers(0, 9)
TABLES = st.lists(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=3),
    min_size=1,
    max_size=4,
)


@given(TABLES, st.integers(0, 30), st.integers(0, 20), st.integers(0, 8), st.data())
def test_neighbours_are_the_best_of_all_assignments(
    table: list[list[tuple[int, int, int]]],
    budget: int,
    other: int,
    count: int,
    data: st.DataObject,
) -> None:
    losses, cost, size = ([[o[i] for o in row] for row in table] for i in range(3))
    here = tuple(data.draw(st.integers(0, len(row) - 1)) for row in table)
    kinds, limits = {"macs": cost, "bytes": size}, {"macs": budget, "bytes": other}
    found = neighbours(kinds, losses, here, limits, count)

    def total(of: list[list[int]], choice: tuple[int, ...]) -> int:
        return sum(row[k] for row, k in zip(of, choice, strict=True))

    near = [
        choice
        for choice in product(*(range(len(row)) for row in table))
        if 1 <= sum(a != b for a, b in zip(choice, here, strict=True)) <= 2
        and all(total(kinds[k], choice) <= limits[k] for k in kinds)
    ]
    assert found == sorted(near, key=lambda c: (total(losses, c), c))[:count]
    if found:
        rest = neighbours(kinds, losses, here, limits, 99, taken=found[:1])
        assert found[0] not in rest
        assert len(rest) == len(near) - 1


def test_a_better_neighbour_wins_and_a_worse_one_does_not(tmp_path: Path) -> None:
    free = [(0.0, 0.0), (0.0, 0.0, 0.0)]
    trials = Trials(tmp_path)
    with pool(1) as here:
        slow = refined(free, free, (1, 1), 1, made, trials, here, rounds=3)
        assert slow.choice != (1, 1)
        assert slow.result.score > slow.began.score
        assert slow.full_trainings <= 3
        best = slow.choice
        again = refined(free, free, best, 1, made, trials, here, rounds=3)
        assert again.choice == best  # elitist: what it began with stays
        assert len(again.races) == 1
        ended = {(r["candidate"], r["epochs"]) for r in again.rows()}
        assert (0, 3) in ended  # trained to the end whatever its rank was
    assert {row["choice"] for row in slow.rows()} <= set(product(range(2), range(3)))


def test_the_budget_in_trainings_is_met(tmp_path: Path) -> None:
    free = [(0.0, 0.0), (0.0, 0.0, 0.0)]
    with pool(1) as here:
        for most in (2.0, 2.5, 3.5):
            store = Trials(tmp_path / str(most))
            found = refined(
                free, free, (0, 0), 1, made, store, here, full_trainings=most, rounds=9
            )
            spent = store.spent().full_trainings
            assert spent == pytest.approx(found.full_trainings)
            assert spent <= most + 1e-9
        with pytest.raises(ValueError, match=r"full_trainings=0.5.*neighbour take 2"):
            refined(
                free, free, (0, 0), 1, made, store, here, full_trainings=0.5, rounds=1
            )


def test_assignments_beside_it_are_raced_too(tmp_path: Path) -> None:
    costs = [(0.0, 9.0), (0.0, 9.0, 9.0)]
    with pool(1) as here:
        found = refined(
            costs, costs, (0, 0), 1, made, Trials(tmp_path), here, beside=[(1, 1)]
        )
        assert found.assignments == (((0, 0), (1, 1)),)
        alone = refined(costs, costs, (0, 0), 1, made, Trials(tmp_path), here)
    assert alone.races == ()  # nothing else is within the budget
    assert alone.choice == (0, 0)
    assert alone.result == found.began


def test_tables_of_different_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 layers' losses, 1 choices"):
        neighbours([(1,), (1,)], [(1,), (1,)], [0], 3, 1)
