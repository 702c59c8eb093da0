"""The precision study: its units are resumable, its tables say what the runs say."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from elision.study.page.paper import paper_page
from elision.study.papers.precision.findings import findings
from elision.study.papers.precision.paper import Precision
from elision.study.papers.precision.published import PUBLISHED, claims
from elision.study.papers.precision.rows import accuracy_rows, price_shares
from elision.study.papers.precision.runs import curves, words

TINY = Precision(
    network=("digits-cnn",),
    recipe=("bf16", "bcgd"),
    seeds=2,
    epochs=1,
    train_images=64,
    test_images=20,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("precision")
    done = []
    tables = TINY.run(folder, progress=lambda *units: done.append(units))
    return folder, tables, done


def rows_of(folder, name):
    with (folder / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_unit_is_run_and_counted(finished):
    folder, _, done = finished
    # Three recipes at two seeds, the ternary networks, and three parts beside.
    assert done == [(n, 10) for n in range(1, 11)]
    assert len(list((folder / "units").iterdir())) == 10


def test_the_same_command_runs_nothing_again(finished):
    folder, tables, _ = finished
    units = {p: p.stat().st_mtime_ns for p in (folder / "units").iterdir()}
    assert TINY.run(folder) == tables
    assert {p: p.stat().st_mtime_ns for p in (folder / "units").iterdir()} == units


def test_a_missing_run_gives_the_same_numbers_again(finished):
    folder, tables, _ = finished
    (folder / "units" / "digits-cnn-bf16-1.json").unlink()
    assert TINY.run(folder) == tables


def test_tables_say_what_the_runs_say(finished):
    folder, tables, _ = finished
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    runs = summary["trainings"]["digits-cnn"]
    accuracies = rows_of(folder, "accuracy")
    assert [row["recipe"] for row in accuracies] == ["dense", "bf16", "bcgd"]
    final = np.array([run["accuracy"][-1] for run in runs["bf16"]])
    expected = f"{100 * final.mean():.2f} ± {100 * final.std(ddof=1):.2f}"
    assert accuracies[1]["accuracy, %"] == expected
    assert tables[0].title == "Published beside our own"


def test_narrow_formats_cost_less_on_every_machine(finished):
    folder, _, _ = finished
    prices = rows_of(folder, "prices")
    assert {row["recipe"] for row in prices} == {"dense", "bf16", "bcgd"}
    energy = {
        (row["recipe"], row["accelerator"]): float(row["energy_on_chip_pj"])
        for row in prices
    }
    machines = {machine for _, machine in energy}
    assert all(energy["bf16", m] < energy["dense", m] for m in machines)
    assert all(energy["bcgd", m] < energy["dense", m] for m in machines)


def test_the_page_shows_figures_and_origins(finished):
    folder, tables, _ = finished
    page = paper_page(TINY, tables)
    assert page.count("<svg") == 2
    assert '<span class="tag">simulated</span>' in page
    assert '<span class="tag">measured here</span>' in page
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "digits-cnn-curves.svg",
        "digits-cnn-prices.svg",
    }


def test_k_tanh_is_as_accurate_as_its_table(finished):
    folder, _, _ = finished
    largest = {
        r["function"]: float(r["largest error"]) for r in rows_of(folder, "k-tanh")
    }
    assert largest["tanh, published table on bfloat16"] == pytest.approx(8.92e-3)
    assert largest["tanh, float32 inputs"] == pytest.approx(1.03e-2, rel=0.01)


def test_every_published_figure_has_a_source_and_a_mark():
    assert all(f.source and f.figure and f.caution for f in PUBLISHED)
    assert {f.mark for f in PUBLISHED} == {"published", "stated"}
    assert all(row["ours, measured here"] == "not measured" for row in claims({}))


def run(*accuracy, diverged=None):
    losses = [None if a is None else 1 - a for a in accuracy]
    return {
        "accuracy": [*accuracy],
        "loss": losses,
        "work": 1.0,
        "macs": 2e6,
        "diverged": diverged,
        "costs": [],
    }


def test_a_run_that_diverged_is_said_and_drawn_by_nobody():
    runs = {
        "dense": [run(0.5, 0.9), run(0.6, 0.8)],
        "fp8": [run(0.5, None, diverged="nan"), run(0.6, None, diverged="nan")],
        "int8": [run(0.5, 0.8), run(0.6, None, diverged="nan")],
    }
    dense, fp8, int8 = accuracy_rows(runs)
    assert dense["accuracy, %"] == "85.00 ± 7.07"
    assert (fp8["accuracy, %"], fp8["diverged"]) == ("diverged", 2)
    assert int8["accuracy, %"] == "80.00"
    assert int8["over float32 at the same seed, points"] == "-10.00"
    assert [*curves(runs, "accuracy")] == ["dense", "int8"]
    middle, spread = curves(runs, "accuracy")["dense"]
    assert middle == pytest.approx([0.55, 0.85])
    assert spread == pytest.approx([0.0707, 0.0707], rel=1e-3)


def test_findings_name_a_drop_that_was_not_met():
    ternary = {
        "cnn": {
            "rows": [
                {"drop": 0.01, "block": 64, "not met": "six terms lose 4 points"},
                {
                    "drop": 0.02,
                    "block": 64,
                    "float": 0.9,
                    "ternary": 0.89,
                    "terms": 2.0,
                    "fewer": 32.0,
                    "smaller": 1.88,
                },
            ]
        }
    }
    seeds = {"accuracy": [0.5], "loss": [1.0], "by probability": [0.6]}
    between = {
        "k_tanh": {"speed": {"bfloat16": 4.0}},
        "lstm": {"rows": [{"gates": "exact", **seeds}]},
        "softmax": {"rows": [{"training loss": "softmax", **seeds}]},
    }
    found = findings({"cnn": {"dense": [run(0.9)]}}, ternary, between)
    assert found["ternary, blocks of 64, drop 0.01"] == "cnn: drop not met"
    assert "32.0 times fewer" in found["ternary, blocks of 64, drop 0.02"]
    assert found["softmax"] == "softmax 60.0 %"
    assert found["k-tanh speed"].startswith("4.0 times")
    keys = {f.ours for f in PUBLISHED}
    assert {"k-tanh lstm", "softmax", "ternary, blocks of 64, drop 0.02"} <= keys


def test_a_machine_without_an_area_has_no_share_of_it():
    cost = {"accelerator": "m", "energy_on_chip_pj": 4.0, "area_mm2": None}
    half = cost | {"energy_on_chip_pj": 2.0}
    prices = [{"recipe": "dense", **cost}, {"recipe": "bf16", **half}]
    recipes, machines, energy, area = price_shares(prices)
    assert (recipes, machines) == (["dense", "bf16"], ["m"])
    assert energy.tolist() == [[1.0], [0.5]]
    assert math.isnan(area[1, 0])


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.5], "50.0"), ([0.5, 0.5], "50.0 ± 0.0"), ([None, None], "diverged")],
)
def test_words_say_mean_and_deviation(values, text):
    assert words(values, ".1f", 100) == text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"network": ("digits",)}, "unknown network 'digits'"),
        ({"recipe": ("bf17",)}, "unknown recipe 'bf17'"),
        ({"seeds": 0}, r"seeds=0\): must be an integer >= 1"),
        ({"test_images": 1}, r"test_images=1\): must be an integer >= 2"),
    ],
)
def test_settings_are_refused_before_anything_runs(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)
