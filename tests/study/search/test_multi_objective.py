"""Black-box searches: a function of the seed, within budgets, better than chance."""

import math
import random
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.study.search.multi_objective import SAMPLERS, feasible_front, sampled
from elision.study.search.space import Choice, Knob, Point, Space

MIXED = Space(
    (
        Choice("layer", ("dense", "swat", "fp8")),
        Knob("lr", 1e-4, 1.0, log=True),
        Knob("bits", 2, 8, integer=True),
    )
)
OPTUNA = [m for m in SAMPLERS if m != "random"]


def bowl(points: Sequence[Point]) -> list[tuple[tuple[float, float], float]]:
    """Losses: a bowl over the knobs, and bits; at most 6 bits are paid for."""
    found = []
    for point in points:
        far = (math.log10(point["lr"]) + 2) ** 2 + (point["layer"] != "swat")
        lost = math.inf if point["bits"] == 8 else far + 1 / point["bits"]
        found.append(((lost, float(point["bits"])), point["bits"] - 6.0))
    return found


@pytest.mark.parametrize("method", list(SAMPLERS))
def test_a_search_is_a_function_of_its_seed_and_batch(method: str) -> None:
    if method in OPTUNA:
        pytest.importorskip("optuna")
    runs = [
        sampled(MIXED, bowl, method=method, count=24, objectives=2, seed=s, batch=4)
        for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
    for judged in runs[0]:
        assert judged.point.keys() == {"layer", "lr", "bits"}
        assert 1e-4 <= judged.point["lr"] <= 1
        assert judged.point["bits"] in range(2, 9)
        assert isinstance(judged.point["bits"], int)
        assert judged.is_feasible == (judged.point["bits"] <= 6)
    front = feasible_front(runs[0])
    assert front
    assert all(runs[0][i].is_feasible for i in front)


@pytest.mark.parametrize("method", OPTUNA)
def test_a_sampler_learns(method: str) -> None:
    pytest.importorskip("optuna")

    def best(method: str) -> float:
        found = [
            min(
                j.losses[0]
                for j in sampled(
                    MIXED, bowl, method=method, count=60, objectives=2, seed=seed
                )
                if j.is_feasible
            )
            for seed in range(5)
        ]
        return sum(found) / len(found)

    assert best(method) < best("random")


def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elision\[search\]'"):
        sampled(MIXED, bowl, method="tpe", count=1, objectives=2)
    assert sampled(MIXED, bowl, method="random", count=1, objectives=2)


def test_wrong_searches_are_refused() -> None:
    for settings, message in (
        ({"method": "annealing"}, "unknown search method.*known: random, tpe, nsga2"),
        ({"method": "random", "count": 0}, r"sampled\(count=0\)"),
        ({"method": "random", "batch": 0}, r"sampled\(batch=0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            sampled(MIXED, bowl, objectives=2, **settings)  # pyright: ignore[reportArgumentType]


@given(
    st.integers(1, 40),
    st.integers(0, 9),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
def test_points_are_different_and_all_where_they_are_few(
    count: int, seed: int, sizes: list[int]
) -> None:
    space = Space(
        tuple(
            Choice(f"c{i}", tuple(map(str, range(size))))
            if i % 2
            else Knob(f"k{i}", 5, 4 + size, integer=True)
            for i, size in enumerate(sizes)
        )
    )
    assert space.size == math.prod(sizes)
    found = space.points(count, seed)
    assert len({tuple(p.values()) for p in found}) == len(found)
    assert len(found) == min(count, space.size)
    assert found == space.points(count, seed)


def test_knobs_draw_within_their_bounds() -> None:
    chance = random.Random(0)
    whole = Knob("n", 1, 100, log=True, integer=True)
    drawn = [whole.drawn(chance) for _ in range(2000)]
    assert min(drawn) == 1
    assert max(drawn) == 100
    # As many below ten as above: equal ratios are equally likely.
    assert 0.4 < sum(value < 10 for value in drawn) / 2000 < 0.6
    rate = Knob("lr", 0.01, 1.0, log=True)
    below = sum(rate.drawn(chance) < 0.1 for _ in range(2000))
    assert 0.45 < below / 2000 < 0.55
    assert Knob("x", 0.5, 0.5).drawn(chance) == 0.5


def test_wrong_spaces_are_refused() -> None:
    for make, message in (
        (lambda: Choice("fc", ()), "choice 'fc': options must be different"),
        (lambda: Choice("fc", ("a", "a")), "choice 'fc': options must be different"),
        (lambda: Knob("x", 2, 1), "knob 'x': low 2 is above high 1"),
        (lambda: Knob("x", 0, 1, log=True), r"knob 'x'\(low=0\): must be a number > 0"),
        (lambda: Knob("x", 0.5, 1, integer=True), r"knob 'x'\(low=0.5\).*an integer"),
        (lambda: Space(()), "different names, at least one"),
        (lambda: Space((Knob("x", 0, 1), Knob("x", 0, 2))), "different names"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
