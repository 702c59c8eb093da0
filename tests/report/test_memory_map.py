"""The picture of a memory plan."""

import re

import pytest

from elision.report.memory_map import memory_map

TENSORS = [
    ("input", 4096, 0, 0, 8192),
    ("first", 8192, 0, 1, 0),
    ("y", 100, 1, 1, 8192),
]


def test_tensors_and_steps_are_drawn() -> None:
    drawn = memory_map(TENSORS, ["conv", "linear"], title="A plan")
    for word in ("input", "first", "conv", "linear", "A plan", "live", "KiB"):
        assert word in drawn
    assert ">y<" not in drawn  # too low for its name
    assert drawn == memory_map(TENSORS, ["conv", "linear"], title="A plan")


def test_boxes_grow_with_their_tensors() -> None:
    one, two = (memory_map(TENSORS[:n], ["a", "b"]) for n in (2, 3))
    assert len(re.findall("<path", two)) > len(re.findall("<path", one))


def test_a_limit_is_drawn_where_it_is_in_sight() -> None:
    assert ">RAM<" in memory_map(TENSORS, ["a", "b"], limit_bytes=10_000)
    assert ">RAM<" not in memory_map(TENSORS, ["a", "b"], limit_bytes=10**6)


def test_many_steps_are_not_named() -> None:
    steps = [f"step{n}" for n in range(50)]
    assert "step49" not in memory_map(TENSORS, steps)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="needs one tensor and one step"):
        memory_map([], ["a"])
