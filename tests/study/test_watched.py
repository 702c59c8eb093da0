"""States of run folders: by their lock, their summary and the headers of checkpoints."""

import fcntl
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from made_checkpoints import CONFIG, SWAT, begun_run, checkpoint_of

from elision.common import locking
from elision.common.locking import alone_in, is_held, locked
from elision.study import StudyConfig
from elision.study.folder import claimed
from elision.study.watched import Watch, Watched
from elision.workloads import Workload

SUMMARY: dict[str, Any] = {
    "schema": 1,
    "recipes": {"dense": {}, SWAT: {}},
    "accelerators": {"ant": {}},
    "seeds": 2,
}


def seen(folder: Path) -> dict[str, Watched]:
    return {run.path: run for run in Watch(folder).runs()}


def test_a_run_is_running_killed_or_ended(tmp_path: Path) -> None:
    run = begun_run(tmp_path / "deep" / "er" / "run")
    with alone_in(run):
        assert seen(tmp_path)["deep/er/run"].state == "running"
    found = seen(tmp_path)["deep/er/run"]
    assert found.state == "killed"
    assert found.command == "elision study --config workload.toml"
    assert (found.workload, found.recipes) == ("small", ("dense", SWAT))
    (run / "summary.json").write_text(json.dumps(SUMMARY), encoding="utf-8")
    assert seen(tmp_path)["deep/er/run"].state == "ended"
    # A run that was given more than its summary has is not at its end.
    begun_run(run, StudyConfig(**{**CONFIG.__dict__, "seeds": 3}))
    assert seen(tmp_path)["deep/er/run"].state == "killed"


def test_the_epochs_and_the_last_loss_and_score_are_those_of_the_checkpoints(
    tmp_path: Path,
) -> None:
    run = begun_run(tmp_path / "run")
    watch = Watch(tmp_path)
    (found,) = watch.runs()
    assert (found.epochs_text(), found.latest, found.loss) == ("0 of 8", "", None)
    older = checkpoint_of(run, "dense", 0.5, 0.75)
    checkpoint_of(run, SWAT, 0.25, seed=1)
    os.utime(older, (1, 1))
    (found,) = Watch(tmp_path).runs()
    assert (found.epochs_text(), found.latest) == ("3 of 8", f"{SWAT}, seed 1")
    assert (found.loss, found.score) == (0.75, 0.25)
    assert time.time() - found.written < 60
    # A look is kept for a moment, and a checkpoint is read again when it has changed.
    assert watch.runs()[0].done == 0
    watch._seen = None
    assert watch.runs()[0].done == 3
    checkpoint_of(run, SWAT, 0.25, 0.5, seed=1)
    watch._seen = None
    assert watch.runs()[0].score == 0.5


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.toml", "layout = [", "config.toml: not readable as TOML"),
        ("config.toml", "layout = 7", "a run folder of layout 7"),
        (
            "config.toml",
            "layout = 1\n[study]\nworkload = 'x.toml'",
            "no workload 'x.toml'",
        ),
        ("config.toml", "layout = 1\n[study]\nworkload = 3", "no workload 3"),
        (
            "config.toml",
            "layout = 1\n[study]\nworkload = 'digits-cnn'\nrecipes = ['nothing']",
            "unknown recipe 'nothing'",
        ),
        ("config.toml", b"\xff", "config.toml"),
        ("summary.json", "[", "summary.json: not JSON"),
        ("summary.json", '{"schema": 2}', "summary.json: a summary of schema 2"),
        (
            "recipes/dense/checkpoint.safetensors",
            "no",
            "not a complete checkpoint file",
        ),
    ],
)
def test_a_damaged_folder_is_named_and_the_others_stay(
    tmp_path: Path, file: str, text: str | bytes, said: str
) -> None:
    begun_run(tmp_path / "good")
    bad = begun_run(tmp_path / "bad")
    (bad / file).parent.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    (bad / file).write_bytes(data)
    found = seen(tmp_path)
    assert found["good"].state == "killed"
    assert found["bad"].state == "damaged"
    assert said in found["bad"].reason
    assert "\n" not in found["bad"].reason


def test_links_and_hidden_folders_are_no_runs(tmp_path: Path) -> None:
    outside = begun_run(tmp_path / "outside")
    inside = tmp_path / "runs"
    begun_run(inside / ".hidden")
    run = begun_run(inside / "run")
    (inside / "link").symlink_to(outside)
    (inside / "forged").mkdir()
    (inside / "forged" / "config.toml").symlink_to(outside / "config.toml")
    checkpoint = checkpoint_of(outside, "dense", 0.5)
    (run / "recipes" / "dense").mkdir(parents=True)
    (run / "recipes" / "dense" / checkpoint.name).symlink_to(checkpoint)
    assert list(seen(inside)) == ["run"]
    assert seen(inside)["run"].done == 0
    assert list(seen(outside)) == [""]  # a run folder itself


def test_nothing_that_a_folder_names_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text("raise SystemExit('imported')", "utf-8")
    monkeypatch.chdir(tmp_path)
    table = {"dataset": "digits", "model": "theirs:make", "name": "theirs"}
    config = StudyConfig(
        workload=Workload.from_dict(table),
        recipes=("theirs:RECIPE", "dense"),
        accelerators=(),
    )
    begun_run(tmp_path / "run", config)
    (found,) = Watch(tmp_path).runs()
    assert (found.state, found.recipes) == ("killed", ("theirs:RECIPE", "dense"))
    assert "theirs" not in sys.modules


def test_what_other_commands_left_is_listed_too(tmp_path: Path) -> None:
    with claimed(tmp_path / "f", {"federated": {}, "workload": {"name": "w"}}):
        assert seen(tmp_path)["f"].state == "running"
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "report.html").write_text("", encoding="utf-8")
    found = seen(tmp_path)
    assert (found["f"].command, found["f"].workload) == ("elision federate", "w")
    assert (found["f"].state, found["faults"].state) == ("killed", "ended")
    assert found["faults"].has_report


def test_a_look_hinders_no_run_and_sees_who_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_held(tmp_path)
    with alone_in(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(ValueError, match="another process is at work"):
            alone_in(tmp_path).__enter__()
    with locked(tmp_path):
        assert is_held(tmp_path)
    # As long as somebody looks, which is never long, a run waits for its folder.
    monkeypatch.setattr(locking, "_LOOK_SECONDS", 10)
    looking = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not is_held(tmp_path)
    end = threading.Timer(0.05, fcntl.flock, [looking, fcntl.LOCK_UN])
    end.start()
    with alone_in(tmp_path):
        end.join()
    os.close(looking)
