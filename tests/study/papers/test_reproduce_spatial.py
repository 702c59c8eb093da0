"""Published spatial arrays: their rates follow from maps and clocks within a per cent."""

import csv
import json

import pytest

from elision.study.papers import PAPERS
from elision.study.papers.spatial import DESIGNS, SpatialDesigns, systolic_gemm


def test_the_published_rates_are_within_a_per_cent(tmp_path) -> None:
    rates, small = PAPERS["spatial"]().run(tmp_path)
    rows = list(csv.DictReader((tmp_path / "spatial.csv").read_text().splitlines()))
    assert len(rows) == len(rates.rows) == len(SpatialDesigns.published) == 5
    assert rows[-1]["share"] == ""  # AutoSA states no clock
    for row in rows[:-1]:
        assert float(row["share"]) == pytest.approx(1, abs=0.01)
    a10, s10 = (float(row["derived_gflops"]) for row in rows[:2])
    assert a10 == pytest.approx(624.6, abs=0.05)
    assert s10 == pytest.approx(1799.2, abs=0.05)
    assert "4.40 s; 9 words a cycle" in rows[0]["note"]
    assert "280.6 MHz" in rows[-1]["note"]
    for row in small.rows:
        if "" not in row.values():
            assert row["simulated"] == row["derived"]
    assert small.rows[-1]["simulated"] == "yes"
    facts = json.loads((tmp_path / "spatial.json").read_text())
    assert facts["parameters"] == {"seed": 0}


def test_the_nest_multiplies_every_pair_once() -> None:
    nest, _ = systolic_gemm((2, 3, 1), (2, 1, 4), (3, 2, 2))
    assert nest.tensor_shape("A") == (2 * 2 * 3, 1 * 4 * 2)
    assert nest.tensor_shape("B") == (1 * 4 * 2, 3 * 1 * 2)
    assert nest.iterations == 12 * 8 * 6
    assert DESIGNS["Stratix 10"].multipliers == 3584


def test_a_seed_is_not_negative() -> None:
    with pytest.raises(ValueError, match=r"SpatialDesigns\(seed=-1\)"):
        SpatialDesigns(seed=-1)
