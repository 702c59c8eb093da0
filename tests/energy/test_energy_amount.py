"""Energy keeps its range, its method and its scope through every operation."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.common.units import in_words
from elision.energy import Energy

FINITE = st.floats(0, 1e12, allow_nan=False)


@st.composite
def energies(draw: st.DrawFn) -> Energy:
    low, more = draw(FINITE), draw(FINITE)
    return Energy(
        low,
        low + more,
        tuple(draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True))),
        draw(st.sampled_from(["process", "machine"])),
        draw(FINITE),
        draw(FINITE),
        draw(st.none() | st.integers(0, 2**40)),
    )


@given(energies(), energies())
def test_sums_add_both_ends_and_lose_no_method_and_no_scope(
    one: Energy, other: Energy
) -> None:
    both = one + other
    assert both.low_joules == one.low_joules + other.low_joules
    assert both.high_joules == one.high_joules + other.high_joules
    assert both.cpu_seconds == one.cpu_seconds + other.cpu_seconds
    assert set(both.methods) == {*one.methods, *other.methods}
    assert set(both.scope.split(" and ")) == {one.scope, other.scope}
    peaks = [e.peak_bytes for e in (one, other) if e.peak_bytes is not None]
    assert both.peak_bytes == (max(peaks) if peaks else None)


@given(energies())
def test_a_file_gives_back_what_was_written(one: Energy) -> None:
    assert Energy.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@given(energies(), st.floats(0, 1e3))
def test_scaling_keeps_the_range_and_the_peak(one: Energy, factor: float) -> None:
    scaled = factor * one
    assert scaled.low_joules == one.low_joules * factor
    assert scaled.low_joules <= scaled.high_joules
    assert (scaled.methods, scaled.scope, scaled.peak_bytes) == (
        one.methods,
        one.scope,
        one.peak_bytes,
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"low_joules": -1.0}, r"Energy\(low_joules=-1.0\): must be a number >= 0"),
        ({"high_joules": math.nan}, r"high_joules=nan"),
        ({"high_joules": 0.5}, "low_joules 1.0 is above high_joules 0.5"),
        ({"methods": ()}, "say in words how the joules were found"),
        ({"methods": ({"RAPL": 1},)}, "say in words how the joules were found"),
        ({"scope": 1.0}, "say in words whose joules; got 1.0"),
        ({"peak_bytes": "many"}, "peak_bytes='many'"),
        ({"wall_seconds": math.inf}, "wall_seconds=inf"),
    ],
)
def test_wrong_numbers_are_refused_by_name(
    changed: dict[str, object], message: str
) -> None:
    values: dict[str, object] = {
        "low_joules": 1.0,
        "high_joules": 2.0,
        "methods": ("a",),
        "scope": "process",
    }
    with pytest.raises(ValueError, match=message):
        Energy(**values | changed)  # pyright: ignore[reportArgumentType]


def test_a_file_with_another_key_is_refused() -> None:
    values = Energy(1, 2, ("a",), "process").to_dict()
    with pytest.raises(ValueError, match="joules"):
        Energy.from_dict(values | {"joules": 1})


def test_an_estimate_is_written_as_a_range_and_a_counter_is_not() -> None:
    assert "3.6 to 7.2 Wh" not in str(Energy(3600, 3600, ("RAPL",), "machine"))
    assert (
        str(Energy(12960, 25920, ("est",), "process")) == "3.6 to 7.2 Wh (est; process)"
    )
    assert Energy.total([]) is None


@given(st.floats(1e-9, 1e9))
def test_words_give_back_three_digits(value: float) -> None:
    text = in_words(value, value, "J")
    number, unit = text.split(" ")
    scale = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9}
    assert float(number) * scale[unit[:-1]] == pytest.approx(value, rel=6e-3)
    assert 1 <= float(number) < 1000
