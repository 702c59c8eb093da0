"""The knapsack is exact: hand cases, brute force, ties, several budgets."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.common.knapsack import knapsack

LOSSES = [(0, 1, 6), (0, 2, 3), (0, 0.5, 4)]
COSTS = [(8, 4, 2), (16, 8, 4), (8, 4, 2)]


def summed(values: Sequence[Sequence[float]], chosen: Sequence[int]) -> float:
    total = 0.0
    for layer, choice in zip(values, chosen, strict=True):
        total += layer[choice]
    return total


def brute_force(
    costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], budget: float
) -> list[int]:
    """Every choice, in lexicographic order: least loss, then cost, then the first."""
    every = itertools.product(*(range(len(layer)) for layer in losses))
    met = [c for c in every if summed(costs, c) <= budget * (1 + 1e-9)]
    return list(min(met, key=lambda c: (summed(losses, c), summed(costs, c))))


@pytest.mark.parametrize(
    ("budget", "loss"), [(32, 0), (24, 1.5), (20, 2.5), (16, 3.5), (12, 4.5), (8, 13)]
)
def test_hand_case(budget: float, loss: float) -> None:
    chosen = knapsack(COSTS, LOSSES, budget)
    assert summed(LOSSES, chosen) == loss
    assert summed(COSTS, chosen) <= budget


def test_choices_of_the_hand_case() -> None:
    assert knapsack(COSTS, LOSSES, 24) == [1, 0, 1]
    assert knapsack(COSTS, LOSSES, 20) == [0, 1, 1]
    # (0, 2, 1) and (1, 1, 1) lose and cost the same: the first choices win.
    assert knapsack(COSTS, LOSSES, 16) == [0, 2, 1]


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_equals_brute_force(
    shape: list[int], seed: int, where: float, is_whole: bool
) -> None:
    # Whole numbers make ties; their sums are exact, so the tie rule is held to the letter.
    rng = np.random.default_rng(seed)
    if is_whole:
        costs = [rng.integers(0, 5, n).astype(float).tolist() for n in shape]
        losses = [rng.integers(-2, 3, n).astype(float).tolist() for n in shape]
    else:
        costs = [(rng.random(n) * rng.integers(1, 100)).tolist() for n in shape]
        losses = [rng.normal(size=n).tolist() for n in shape]
    least, most = sum(map(min, costs)), sum(map(max, costs))
    budget = least + where * (most - least)
    assert knapsack(costs, losses, budget) == brute_force(costs, losses, budget)


@pytest.mark.parametrize("seed", range(10))
def test_two_budgets_equal_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bytes_, seconds, losses = (
        rng.integers(1, 9, (4, 3)).astype(float).tolist() for _ in "123"
    )
    budget = {"bytes": 18.0, "seconds": 18.0}
    every = itertools.product(range(3), repeat=4)
    met = [
        summed(losses, c)
        for c in every
        if max(summed(bytes_, c), summed(seconds, c)) <= 18
    ]
    chosen = knapsack({"bytes": bytes_, "seconds": seconds}, losses, budget)
    assert summed(losses, chosen) == min(met)
    assert max(summed(bytes_, chosen), summed(seconds, chosen)) <= 18


def test_budgets_that_contradict_each_other() -> None:
    costs = {"bytes": [(1, 9)], "seconds": [(9, 1)]}
    with pytest.raises(ValueError, match="nothing meets bytes 2, seconds 2 together"):
        knapsack(costs, [(0, 0)], {"bytes": 2, "seconds": 2})


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_two_hundred_layers_of_twelve_choices(noise: float) -> None:
    # With little noise losses are almost a line over the costs, the worst case of bounds.
    rng = np.random.default_rng(0)
    costs = rng.random((200, 12)) + 0.1
    losses = 3 - costs + noise * rng.random((200, 12))
    budget = 0.5 * (costs.min(1).sum() + costs.max(1).sum())
    chosen = knapsack(costs.tolist(), losses.tolist(), budget)
    assert summed(costs.tolist(), chosen) <= budget * (1 + 1e-9)
    # A multiplier of the budget bounds every choice from below (weak duality).
    dual = max(
        (losses + m * costs).min(1).sum() - m * budget for m in np.linspace(0, 4, 401)
    )
    assert summed(losses.tolist(), chosen) - dual < 1e-4 * dual


@pytest.mark.parametrize(
    ("costs", "losses", "budget", "said"),
    [
        (COSTS, LOSSES, 7.9, r"nothing meets it; the least possible is 8"),
        (COSTS, LOSSES[:2], 9, "costs of 3 layers, losses of 2"),
        ([(1, 2)], [(1,)], 9, "layer 0 has 2 costs and 1 losses"),
        ([()], [()], 9, "layer 0 has no choice"),
        ([(-1,)], [(0,)], 9, "a cost of layer 0 is negative"),
        ([(1,)], [(float("nan"),)], 9, "losses of layer 0 is not finite"),
        ([(1,)], [(1,)], float("nan"), "budget"),
        ({"bytes": [(1,)]}, [(1,)], 3, "need a budget each"),
    ],
)
def test_bad_input(costs: Any, losses: Any, budget: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        knapsack(costs, losses, budget)


def test_no_layers_and_no_limit() -> None:
    assert knapsack([], [], 0) == []
    assert knapsack(COSTS, LOSSES, float("inf")) == [0, 0, 0]
