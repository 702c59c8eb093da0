"""Reports of run folders made again: the same bytes, and what an unfinished run has."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import run

from elision.common.locking import alone_in
from elision.study import StudyConfig, study
from elision.study import run as study_run
from elision.study.restored import restored
from elision.workloads import Workload

SWAT = "swat(0.9)"
SEED_1 = Path("recipes", "swat-0.9-", "seed-1", "checkpoint.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"dataset": "digits", "model": "mlp(width=8)", "epochs": 2}
    config = StudyConfig(
        workload=Workload.from_dict({**small, "train_images": 128, "test_images": 32}),
        recipes=("dense", SWAT),
        accelerators=("dense", "ant"),
        probes=("memory(rounds=1,batches=2)",),
        seeds=2,
    )
    folder = tmp_path_factory.mktemp("restored") / "run"
    study(config, folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a report trains and simulates nothing")

    monkeypatch.setattr(study_run, "train", never)
    monkeypatch.setattr(study_run, "simulate", never)
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_the_report_is_the_same_to_the_byte(folder: Path, tmp_path: Path) -> None:
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(f"report {folder}") == 0
    assert (folder / "report.html").read_bytes() == page
    with alone_in(folder):  # beside a run that is at work, elsewhere only
        assert run(f"report {folder}") == 2
        assert run(f"report {folder} --out {tmp_path / 'new' / 'other.html'}") == 0
    assert (tmp_path / "new" / "other.html").read_bytes() == page
    after = {path: path.read_bytes() for path in before}
    assert after == before  # nothing else is written


def test_a_run_that_was_interrupted_shows_what_is_finished(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "summary.json").unlink()
    (folder / "trace.safetensors").unlink()
    (folder / SEED_1).unlink()
    (folder / "recipes" / "dense" / "probe-memory-rounds-1-batches-2-.json").unlink()
    found = restored(folder)
    assert [o.spec for o in found.outcome.outcomes] == ["dense", SWAT]
    assert [list(o.histories) for o in found.outcome.outcomes] == [[0], [0]]
    assert found.outcome.config.accelerators == ("dense", "ant")
    assert found.missing == (
        f"{SWAT}, seed 1, is at epoch 0 of 2",
        "the probe memory(rounds=1,batches=2) has not looked at dense",
    )
    assert run(f"report {folder}") == 0
    assert f"not in it: {SWAT}, seed 1" in capsys.readouterr().out
    page = (folder / "report.html").read_text("utf-8")
    assert 'id="not-in-this-report"' in page
    assert f"<li>{SWAT}, seed 1, is at epoch 0 of 2</li>" in page
    (folder / "recipes" / "swat-0.9-" / "recipe.toml").unlink()
    assert [o.spec for o in restored(folder).outcome.outcomes] == ["dense"]
    (folder / "recipes" / "dense" / "costs.json").unlink()
    found = restored(folder)
    assert found.outcome.config.accelerators == ()
    assert any("costs of dense on dense, ant" in what for what in found.missing)


def test_the_baseline_of_a_part_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "recipes" / "dense")
    (folder / "summary.json").unlink()
    found = restored(folder)
    assert found.outcome.config.recipes == (SWAT,)
    assert "dense is at epoch 0 of 2" in found.missing[0].replace(", seed 0,", "")
    assert any(f"compared with {SWAT}" in what for what in found.missing)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("summary.json", "{", "summary.json: not JSON"),
        (
            "summary.json",
            '{"schema": 2}',
            "a summary of schema 2; this version reads schema 1",
        ),
        ("env.json", None, "env.json: No such file or directory"),
        ("trace.safetensors", "x", "trace.safetensors: not a complete trace file"),
        ("recipes/dense/costs.json", "[]", "costs.json: no costs of a recipe"),
        (
            "recipes/dense/costs.json",
            '{"schema": 2}',
            "of schema 2; this version reads 1",
        ),
        (
            "recipes/dense/probe-memory-rounds-1-batches-2-.json",
            '{"schema": 1, "policies": true}',
            "such as probe-*.json, is of another form: ",
        ),
        ("recipes/dense/recipe.toml", "=", "recipe.toml: not a recipe"),
        ("recipes/dense/checkpoint.safetensors", "", "not a complete checkpoint file"),
        ("recipes/dense/trace-2.safetensors", None, "no such trace file"),
        ("config.toml", "layout = 9", "a run folder of layout 9"),
        ("config.toml", None, "not a run folder (it has no config.toml)"),
    ],
)
def test_what_is_damaged_or_missing_is_named_in_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    text: str | None,
    said: str,
) -> None:
    page = (folder / "report.html").read_bytes()
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text, encoding="utf-8")
    assert run(f"report {folder}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert (folder / "report.html").read_bytes() == page


def test_a_run_without_a_finished_recipe_says_how_far_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "recipes")
    assert run(f"report {folder}") == 2
    assert "dense, seed 0, is at epoch 0 of 2" in capsys.readouterr().err
    assert run(f"report {folder.parent / 'nothing'}") == 2
    assert not (folder.parent / "nothing").exists()


def test_costs_are_kept_to_the_bit(folder: Path) -> None:
    kept = json.loads((folder / "summary.json").read_text("utf-8"))
    again = restored(folder).outcome.summary()
    assert again["accelerators"] == kept["accelerators"]
    assert again["recipes"] == kept["recipes"]
