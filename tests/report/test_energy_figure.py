"""Accuracy over processor seconds and energy: ranges stay ranges, units fit."""

import pytest

from elision.report.energy_figure import energy_curves
from elision.report.style import marks_of

SCORES = {"dense": [0.5, 0.9], "swat<1>": [0.4, 0.8]}
SECONDS = {"dense": [1.0, 2.0], "swat<1>": [1.5, 3.0]}


def drawn(scale: float, width: float, **settings: bool) -> str:
    wh = {
        name: [(scale * s, width * scale * s) for s in seconds]
        for name, seconds in SECONDS.items()
    }
    return energy_curves(SCORES, SECONDS, wh, marks_of(list(SCORES)), **settings)


@pytest.mark.parametrize(
    ("scale", "unit"), [(1e3, "kWh"), (1.0, "Wh"), (1e-3, "mWh"), (1e-9, "nWh")]
)
def test_the_unit_fits_the_largest(scale: float, unit: str) -> None:
    text = drawn(scale, 5.0)
    assert f">{unit}, before PUE<" in text
    assert "estimated, from lowest to highest" in text
    assert "swat&lt;1&gt;" in text


def test_a_counter_has_no_range_and_an_axis_from_its_values() -> None:
    text = drawn(1.0, 1.0, estimated=False)
    assert "Energy by counters" in text
    assert "estimated" not in text


def test_another_metric_is_no_percentage() -> None:
    assert "%<" in drawn(1.0, 5.0)
    assert "%<" not in drawn(1.0, 5.0, percent=False)
