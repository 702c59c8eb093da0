"""The sparse-training study: resumable, complete, and honest about its noise."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from elision import methods
from elision.cli.main import app
from elision.study.papers.sparse_training import paper as study
from elision.study.papers.sparse_training import runs as runs
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
    results = runs.run(tmp_path, TINY, sparsities=(0.5,), seeds=(0,))
    assert [r.method for r in results] == [*runs.METHODS]
    work = {r.method: r.training_work for r in results}
    assert work["dense"] == 1
    start_dense = {"dense", "dst", "resprop", "w-resprop", "gradual"}
    assert all(share < 1 for name, share in work.items() if name not in start_dense)
    rows = study.table(results)
    assert [row.method for row in rows] == [*runs.METHODS]
    assert all(row.spread is None for row in rows)


def test_an_interrupted_study_trains_only_what_is_missing(tmp_path):
    names, seen = ("dense", "static-erk"), []
    options = {"names": names, "sparsities": (0.8, 0.9), "progress": seen.append}
    first = runs.run(tmp_path, TINY, seeds=(0,), **options)
    assert [(r.method, r.sparsity) for r in first] == [
        ("dense", 0.0),
        ("static-erk", 0.8),
        ("static-erk", 0.9),
    ]
    (tmp_path / "static-erk-80-0.json").unlink()
    again = runs.run(tmp_path, TINY, seeds=(0,), **options)
    assert [r.method for r in seen] == [
        "dense",
        "static-erk",
        "static-erk",
        "static-erk",
    ]
    assert [r.accuracy for r in again] == [r.accuracy for r in first]
    assert runs.run(tmp_path, TINY, seeds=(0, 1), seconds=0.0, **options) == again


def test_a_result_file_holds_the_result(tmp_path):
    (result,) = runs.run(tmp_path, TINY, names=("dense",), seeds=(3,))
    assert (
        runs.RunResult(**json.loads((tmp_path / "dense-0-3.json").read_text()))
        == result
    )


def results(method, accuracies, sparsity=0.9):
    return [
        runs.RunResult(method, sparsity, seed, accuracy, 0.2, 0.1, 1.0)
        for seed, accuracy in enumerate(accuracies)
    ]


def test_the_table_gives_mean_spread_and_what_is_published():
    (row,) = study.table(results("rigl-erk", [0.70, 0.72, None]))
    assert row.mean == pytest.approx(71.0)
    assert row.spread == pytest.approx(2**0.5)
    assert (row.seeds, row.diverged) == (2, 1)
    assert [p.at("rigl-erk", 0.9) for p in study.PUBLISHED] == [73.07, None, 92.9]
    (row,) = study.table(results("rigl-erk", [0.7], sparsity=0.95))
    assert row.spread is None


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


def test_a_single_seed_decides_no_order():
    rows = study.table([*results("rigl-erk", [0.9]), *results("set", [0.5, 0.6])])
    assert study.orderings(rows) == []


def test_the_markdown_table_keeps_measured_and_published_apart():
    rows = study.table(
        [*results("rigl-erk", [0.70, 0.72, None]), *results("meprop", [0.5])]
    )
    lines = study.markdown(rows).splitlines()
    assert lines[2].split(" | ")[2] == "71.0 ± 1.4 (2 seeds), 1 diverged"
    assert lines[0].endswith(
        "| ResNet-34, ImageNet, published | WRN-22-2, CIFAR-10, published |"
    )
    assert lines[2].endswith("| 0.200 | 0.100 | 73.07 |  | 92.9 |")
    assert lines[3] == "| meprop | 90 % | 50.0 (1 seed) | 0.200 | 0.100 |  |  |  |"


def test_an_unknown_method_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown method 'rigl'"):
        runs.run(tmp_path, TINY, names=("rigl",))
    assert not any(tmp_path.iterdir())


def test_runs_of_two_workloads_do_not_mix(tmp_path):
    runs.run(tmp_path, TINY, names=())
    with pytest.raises(ValueError, match="holds a run with another epochs"):
        runs.run(tmp_path, replace(TINY, epochs=2), names=())


def test_neighbouring_sparsities_have_files_of_their_own(tmp_path):
    options = {"names": ("static-erk",), "seeds": (0,)}
    found = runs.run(tmp_path, TINY, sparsities=(0.9, 0.904), **options)
    assert found[0].inference_work > found[1].inference_work


SMALL = ("--epochs", "1", "--train-images", "64", "--test-images", "64")


def test_the_command_trains_what_is_missing_and_writes_the_tables(tmp_path, capsys):
    told = ("--network", "resnet8", "--method", "dense", "set", "--sparsity", "0.8")
    command = ("reproduce", "sparse-training", *told, *SMALL, "--out", str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "DEBIAN_FOLDER", tmp_path / "none")
        for seeds in ("1", "2"):
            app(
                [*command, "--seeds", seeds],
                exit_on_error=False,
                result_action="return_value",
            )
    printed = capsys.readouterr()
    assert "photo-patches" in printed.out
    assert printed.err.count("dense") == 2
    facts = json.loads((tmp_path / "study.json").read_text())["resnet8"]
    assert [r["seeds"] for r in facts["table"]] == [2, 2]
    assert (tmp_path / "study.md").read_text() in printed.out
    assert (tmp_path / "resnet8" / "env.json").is_file()


@pytest.mark.parametrize("every", [1, 6, 7, 8, 10, 30, 210])
def test_the_meter_meets_every_phase_of_the_moves(every):
    period = runs._meter_every(methods.RigL(0.9, every=every))
    assert {(step * period) % every for step in range(every)} == set(range(every))


def test_the_documented_tables_are_those_of_the_recorded_runs():
    here = Path(__file__).parents[3]
    page = (here / "docs" / "sparse-training-study.md").read_text(encoding="utf-8")
    record = here / "records" / "2026-11-21-sparse-training" / "study.json"
    for network in json.loads(record.read_text(encoding="utf-8")).values():
        rows = study.table(runs.RunResult(**run) for run in network["runs"])
        assert study.markdown(rows) in page
        if study.orderings(rows):
            assert study.orderings_markdown(rows) in page
