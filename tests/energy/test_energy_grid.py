"""PUE, grid intensity and SCI against figures worked out by hand."""

import pytest

from elision.energy import GRIDS, Coefficients, Energy, Grid, grid_named, sci

ONE_CORE_AT_FIVE_WATTS = Coefficients(
    core_watts=(5, 5), gib_watts=(0, 0), source="the oracle"
)
GRID = Grid(pue=1.2, intensity_g_per_kwh=400, source="the oracle")


def test_an_hour_of_one_core_at_five_watts() -> None:
    """5 W x 3,600 s = 5 Wh; x 1.2 = 6 Wh from the wall; x 400 g/kWh = 2.4 g."""
    hour = ONE_CORE_AT_FIVE_WATTS.energy(3600, 3600, 2**30)
    assert hour.watt_hours == (5, 5)
    assert GRID.kwh(hour) == (0.006, 0.006)
    assert GRID.grams(hour) == pytest.approx((2.4, 2.4))
    assert GRID.text(hour).startswith("6 Wh from the wall, 2.4 g CO2e (")


def test_a_range_stays_a_range_to_the_gram() -> None:
    estimate = Coefficients().energy(3600, 7200, 2**30)
    low, high = estimate.low_joules, estimate.high_joules
    assert low == pytest.approx(3600 * 1.69 + 7200 * 0.086)
    assert high == pytest.approx(3600 * 8.58 + 7200 * 0.421)
    grams = GRID.grams(estimate)
    assert grams[1] / grams[0] == pytest.approx(high / low)
    assert " to " in GRID.text(estimate)


def test_memory_that_is_not_known_is_named() -> None:
    assert "memory not counted" in Coefficients().energy(1, 1, None).methods[0]


def test_sci_adds_the_share_of_the_hardware_and_divides_by_the_unit() -> None:
    hour = Energy(18000, 36000, ("a",), "process")
    assert sci(hour, GRID, embodied_g=1.6, units=2) == pytest.approx((2.0, 3.2))
    with pytest.raises(ValueError, match=r"units=0\): must be a number > 0"):
        sci(hour, GRID, embodied_g=0, units=0)


@pytest.mark.parametrize("name", list(GRIDS))
def test_every_named_grid_has_a_source_with_its_year(name: str) -> None:
    source = GRIDS[name].source
    assert "2025" in source
    assert "of 202" in source
    assert grid_named(name) is GRIDS[name]


def test_what_is_given_replaces_the_default_and_its_source() -> None:
    default = grid_named()
    assert default is GRIDS["world"]
    own = grid_named(123.5, 1)
    assert (own.pue, own.intensity_g_per_kwh) == (1, 123.5)
    assert own.source == "PUE given; intensity given"
    half = grid_named(pue=1.1)
    assert half.intensity_g_per_kwh == default.intensity_g_per_kwh
    assert "PUE given" in half.source
    assert "Ember" in half.source


@pytest.mark.parametrize(
    ("grid", "pue", "message"),
    [
        ("frence", None, "did you mean 'france'"),
        ("-3", None, "intensity_g_per_kwh=-3.0"),
        ("nan", None, "intensity_g_per_kwh=nan"),
        (None, 0.9, r"Grid\(pue=0.9\): must be a number >= 1"),
    ],
)
def test_a_wrong_grid_is_refused(
    grid: str | None, pue: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        grid_named(grid, pue)


def test_coefficients_upside_down_are_refused() -> None:
    with pytest.raises(ValueError, match=r"core_watts=1\): must be a number >= 2"):
        Coefficients(core_watts=(2, 1))
