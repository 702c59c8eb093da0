"""The sparse-training study: resumable, complete, and honest about its noise."""

import json

import pytest

from elision import methods
from elision.reproduce import sparse_training as study
from elision.workloads import Workload

TINY = Workload(
    name="digits-tiny",
    dataset="digits",
    model="resnet8",
    epochs=1,
    train_images=128,
    test_images=64,
    model_options={"width": 4},
)


def test_every_method_of_the_study_trains(tmp_path):
    results = study.run(tmp_path, TINY, sparsities=(0.5,), seeds=(0,))
    assert [r.method for r in results] == [*study.METHODS]
    work = {r.method: r.training_work for r in results}
    assert work["dense"] == 1
    start_dense = {"dense", "dst", "resprop", "w-resprop", "gradual"}
    assert all(share < 1 for name, share in work.items() if name not in start_dense)
    rows = study.table(results)
    assert [row.method for row in rows] == [*study.METHODS]
    assert all(row.spread is None for row in rows)


def test_an_interrupted_study_trains_only_what_is_missing(tmp_path):
    names, seen = ("dense", "static-erk"), []
    options = {"names": names, "sparsities": (0.8, 0.9), "progress": seen.append}
    first = study.run(tmp_path, TINY, seeds=(0,), **options)
    assert [(r.method, r.sparsity) for r in first] == [
        ("dense", 0.0),
        ("static-erk", 0.8),
        ("static-erk", 0.9),
    ]
    (tmp_path / "static-erk-80-0.json").unlink()
    again = study.run(tmp_path, TINY, seeds=(0,), **options)
    assert [r.method for r in seen] == [
        "dense",
        "static-erk",
        "static-erk",
        "static-erk",
    ]
    assert [r.accuracy for r in again] == [r.accuracy for r in first]
    assert study.run(tmp_path, TINY, seeds=(0, 1), seconds=0.0, **options) == again


def test_a_result_file_holds_the_result(tmp_path):
    (result,) = study.run(tmp_path, TINY, names=("dense",), seeds=(3,))
    assert (
        study.RunResult(**json.loads((tmp_path / "dense-0-3.json").read_text()))
        == result
    )


def results(method, accuracies, sparsity=0.9):
    return [
        study.RunResult(method, sparsity, seed, accuracy, 0.2, 0.1, 1.0)
        for seed, accuracy in enumerate(accuracies)
    ]


def test_the_table_gives_mean_spread_and_what_is_published():
    (row,) = study.table(results("rigl-erk", [0.70, 0.72, None]))
    assert row.mean == pytest.approx(71.0)
    assert row.spread == pytest.approx(2**0.5)
    assert (row.seeds, row.diverged, row.published) == (2, 1, 73.07)
    (row,) = study.table(results("rigl-erk", [0.7], sparsity=0.95))
    assert (row.spread, row.published) == (None, None)


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        ([0.80, 0.81, 0.82], [0.70, 0.71, 0.72], "confirmed"),
        ([0.70, 0.71, 0.72], [0.80, 0.81, 0.82], "denied"),
        ([0.70, 0.75, 0.80], [0.71, 0.74, 0.79], "within the spread"),
    ],
)
def test_orderings_are_confirmed_or_denied_by_the_figures(better, worse, verdict):
    rows = study.table([*results("rigl-erk", better), *results("set", worse)])
    (found,) = study.orderings(rows)
    assert (found["better"], found["worse"], found["verdict"]) == (
        "rigl-erk",
        "set",
        verdict,
    )


def test_the_markdown_table_keeps_measured_and_published_apart():
    rows = study.table(
        [*results("rigl-erk", [0.70, 0.72, None]), *results("meprop", [0.5])]
    )
    lines = study.markdown(rows).splitlines()
    assert lines[2].split(" | ")[2] == "71.0 ± 1.4 (2 seeds), 1 diverged"
    assert lines[2].endswith("| 0.200 | 0.100 | 73.07 |")
    assert lines[3] == "| meprop | 90 % | 50.0 (1 seed) | 0.200 | 0.100 |  |"


def test_an_unknown_method_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown method 'rigl'"):
        study.run(tmp_path, TINY, names=("rigl",))


@pytest.mark.parametrize("every", [1, 6, 7, 8, 10, 30, 210])
def test_the_meter_meets_every_phase_of_the_moves(every):
    period = study._meter_every(methods.RigL(0.9, every=every))
    assert {(step * period) % every for step in range(every)} == set(range(every))
