"""The figures on the page about energy are those of its record and of the code."""

import json
from pathlib import Path

import pytest

from elision.common.units import in_words
from elision.energy import GRIDS, Coefficients, table_uncertainty

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "records" / "2026-11-30-energy"
PAGE = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_record() -> None:
    if not RECORD.exists():
        pytest.skip("not a checkout")
    found = json.loads((RECORD / "run.json").read_text())
    training, asleep = found["training"], found["asleep"]
    cells = [
        f"{1000 * low:.3g} to {1000 * high:.3g}"
        for low, high in (training["ours"]["wh"], asleep["ours"]["wh"])
    ]
    assert f"| ours | {' | '.join(cells)} | process |" in PAGE
    cells = [f"{1000 * block['codecarbon']['wh']:.1f}" for block in (training, asleep)]
    version = found["versions"]["codecarbon"]
    assert f"| CodeCarbon {version} | {' | '.join(cells)} | machine |" in PAGE
    assert training["zeus"]["joules_cpu"] is None
    share = training["codecarbon"]["wh_memory"] / training["codecarbon"]["wh"]
    assert f"which is {100 * share:.0f} % of its total" in PAGE
    seconds = training["ours"]["energy"]
    assert f"the same {seconds['wall_seconds']:.0f} seconds" in PAGE
    assert f"had {seconds['cpu_seconds']:.1f} processor seconds" in PAGE


def test_defaults_are_those_of_the_code() -> None:
    low, high = Coefficients().core_watts
    assert f"is {low} to {high} W a busy hardware thread" in PAGE
    low, high = Coefficients().gib_watts
    assert f"is {low} to {high} W" in PAGE
    world = GRIDS["world"]
    assert f"a PUE of {world.pue:g} " in PAGE
    assert f"{world.intensity_g_per_kwh:g} g/kWh (Ember" in PAGE
    assert f"factor of {table_uncertainty():.1f} either way" in PAGE
    for name in GRIDS:
        assert name in PAGE


def test_the_records_readme_is_that_of_the_record() -> None:
    if not RECORD.exists():
        pytest.skip("not a checkout")
    text = (RECORD / "README.md").read_text(encoding="utf-8")
    runs = json.loads((RECORD / "photo-resnet8" / "energy.json").read_text())["recipes"]
    for name, spec in (
        ("dense", "dense"),
        ("SWAT", "swat:sparsity=0.9"),
        ("RigL", "rigl:sparsity=0.9"),
        ("bf16", "bf16"),
    ):
        assert f"{name} {1e3 * runs[spec]['0']['step_cpu_seconds']:.1f}" in text
    found = json.loads((RECORD / "run.json").read_text())
    for block in ("training", "asleep"):
        low, high = found[block]["ours"]["wh"]
        assert in_words(low, high, "Wh") in text
