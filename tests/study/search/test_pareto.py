"""The Pareto front against every pair of points."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.study.search.pareto import front


def slow_front(points: list[tuple[float, ...]]) -> set[int]:
    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        pairs = list(zip(a, b, strict=True))
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    return {
        place
        for place, point in enumerate(points)
        if not any(map(math.isnan, point))
        and not any(
            dominates(other, point)
            for other in points
            if not any(map(math.isnan, other))
        )
    }


VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.5, math.inf, -math.inf, math.nan])


@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(st.tuples(*[VALUES | st.integers(0, 9)] * k), max_size=14)
    )
)
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    found = front(points)
    assert len(found) == len(set(found))
    assert set(found) == slow_front(points)
    keys = [(*points[i], i) for i in found]
    assert keys == sorted(keys)


def test_points_of_different_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="one number of objectives"):
        front([(1, 2), (1,)])
    with pytest.raises(ValueError, match="one number of objectives"):
        front([()])
    assert front([]) == []
