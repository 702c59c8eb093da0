"""Candidates are timed in turns, by the clock that the thread count calls for."""

import time
from collections.abc import Iterator
from itertools import count

import pytest
import torch

from elision.common.timing import fastest, interleaved


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_each_candidate_is_warmed_up_and_then_timed_in_turns() -> None:
    calls: list[str] = []
    found = fastest({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert "".join(calls) == "abababab"
    assert found.keys() == {"a", "b"}
    assert all(0 <= seconds < 1 for seconds in found.values())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("number", "clock"), [(1, "thread_time"), (2, "perf_counter")])
def test_one_thread_takes_its_own_time_and_several_the_wall(
    number: int, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(number)
    # Steps of 5, 3 and 1: the best call of the three takes 1.
    readings = iter([0.0, 9.0, 10.0, 15.0, 20.0, 23.0, 30.0, 31.0])
    monkeypatch.setattr(time, clock, lambda: next(readings))
    assert fastest({"a": lambda: None}, 3) == {"a": 1.0}


def test_rounds_rotate_so_that_no_candidate_is_always_first() -> None:
    calls: list[str] = []
    found = interleaved({n: lambda n=n: calls.append(n) for n in "abc"}, 4)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(seconds) for name, seconds in found.items()} == dict.fromkeys(
        "abc", 4
    )


@pytest.mark.parametrize(
    ("wall", "clock"), [(True, "perf_counter"), (False, "process_time")]
)
def test_rounds_take_the_clock_that_is_named(
    wall: bool, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()
    monkeypatch.setattr(time, clock, lambda: float(next(ticks)))
    assert interleaved({"a": lambda: None}, 2, wall=wall) == {"a": [1.0, 1.0]}
