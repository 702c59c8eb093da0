"""Loggers: values arrive once, whatever ends a run; nothing of them changes or stops it."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elision.common.files import load_tensors
from elision.methods import RigL
from elision.study import StudyConfig, study
from elision.training import LogTo, RunLog, RunPlan, train
from elision.training.loggers import Told, check_loggers, log
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=2,
    train_images=64,
    test_images=10,
    batch_size=16,
)
STEPS = 4  # of an epoch


class Kept:
    """A logger that keeps what it is told, and disturbs what it can."""

    name, package, extra = "kept", "torch", "kept"
    told: list[Told] = []
    values: list[tuple[int, dict[str, float]]] = []
    finals: list[dict[str, float]] = []
    closed: list[bool] = []

    def __init__(self, target: str | None) -> None:
        self.target = target

    def open(self, told: Told) -> str:
        self.told.append(told)
        return told.kept or "an id"

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        torch.manual_seed(step), random.seed(step), np.random.seed(step)  # noqa: NPY002
        self.values.append((step, dict(values)))

    def final(self, values: Mapping[str, float], step: int) -> None:
        self.finals.append(dict(values))

    def flush(self) -> None:
        torch.manual_seed(0)

    def close(self, finished: bool) -> None:
        self.closed.append(finished)


class Failing(Kept):
    """A logger whose service is away from its third step on."""

    name = "failing"

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if step >= 3:
            raise ConnectionError("no\nanswer")


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LOGGERS", {m.name: m for m in (Kept, Failing)})
    for each in (Kept.told, Kept.values, Kept.finals, Kept.closed):
        each.clear()


def _trained(folder: Path, specs: tuple[str, ...], plan: RunPlan | None = None) -> Any:
    to = LogTo(specs, folder / "logs", ("mine", "rigl")) if specs else None
    plan = plan or RunPlan()
    result = train(
        SMALL, RigL(0.5), SMALL.load_dataset(), plan, folder=folder / "run", log=to
    )
    return result.model.state_dict()


def test_a_run_is_the_same_to_the_bit_with_loggers_and_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without = _trained(tmp_path / "without", ())
    with_them = _trained(tmp_path / "with", ("kept", "failing"))
    assert without.keys() == with_them.keys()
    assert all(torch.equal(without[name], with_them[name]) for name in without)
    before, _ = load_tensors(
        tmp_path / "without/run/checkpoint.safetensors", "checkpoint"
    )
    after, _ = load_tensors(tmp_path / "with/run/checkpoint.safetensors", "checkpoint")
    assert torch.equal(before["generator"], after["generator"])
    told = [r.getMessage() for r in caplog.records if "logger" in r.getMessage()]
    assert told == [
        "the logger failing failed and is left out, the run goes on: no answer"
    ]
    assert [step for step, _ in Kept.values] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert Kept.closed == [True]
    _, last = Kept.values[-1]
    assert last.keys() >= {
        *("loss", "test_accuracy", "learning_rate", "epoch", "step/loss"),
        *("epoch/wall_seconds", "epoch/peak_bytes", "masks/moves", "work/forward"),
        "density/forward/weight",
    }
    density = [v for name, v in last.items() if name.startswith("masks/density/")]
    assert density
    assert 0 < min(density) < 1


def test_a_resumed_run_doubles_no_step(tmp_path: Path) -> None:
    _trained(tmp_path, ("kept",), RunPlan(pause_after=1))
    (tmp_path / "run" / "checkpoint.safetensors").unlink()  # the epoch is trained again
    _trained(tmp_path, ("kept",))
    assert [step for step, _ in Kept.values] == list(range(1, 2 * STEPS + 1))
    assert [(told.kept, told.first_step) for told in Kept.told] == [
        (None, 1),
        ("an id", STEPS + 1),
    ]
    _trained(tmp_path, ("kept",))  # it is finished
    assert len(Kept.told) == 2


def test_loggers_given_later_hear_of_the_epochs_before(tmp_path: Path) -> None:
    _trained(tmp_path, (), RunPlan(pause_after=1))
    _trained(tmp_path, ("kept",))
    assert [step for step, _ in Kept.values] == [4, 5, 6, 7, 8]
    assert Kept.values[0][1]["epoch"] == 0


def _interrupted(folder: Path) -> None:
    with RunLog(["kept"], folder, name="mine", resume=True) as opened:
        opened.scalars({"loss": 1.0}, 0)
        raise KeyboardInterrupt


def test_an_error_ends_the_log_unfinished_and_damaged_marks_count_as_none(
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path)
    assert Kept.closed == [False]
    (tmp_path / "logged" / "mine" / "kept.json").write_text("{")
    with RunLog(["kept"], tmp_path, name="mine", resume=True) as opened:
        opened.scalars({"loss": 1.0}, 0)
    assert [told.kept for told in Kept.told] == [None, None]


def test_a_run_begun_anew_is_logged_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLog(["kept"], tmp_path, config={"lr": 0.1}) as opened:
            opened.scalars({"loss": 1.0}, 0)
            opened.scalars({"loss": 0.5}, 0)
    assert [step for step, _ in Kept.values] == [0, 0]
    assert [told.kept for told in Kept.told] == [None, None]


def test_a_study_tells_what_its_machines_cost_once(tmp_path: Path) -> None:
    config = StudyConfig(workload=SMALL, recipes=("dense",), accelerators=("dense",))
    plain = study(config, tmp_path / "plain")
    outcome = study(config, tmp_path / "logged", log=["kept"])
    assert outcome.summary() == plain.summary()
    assert Kept.told[0].name == ("logged", "dense", "seed-0")
    assert Kept.told[0].config["recipe"] == "dense"
    study(config, tmp_path / "logged", log=["kept"])
    (told,) = Kept.finals
    cycles = outcome.summary()["accelerators"]["dense"]["dense"]["total"]["cycles"]
    assert told["simulated/dense/total/cycles"] == cycles


def test_unknown_and_doubled_loggers_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"unknown logger 'kepd' .* known: kept, failing"
    ):
        check_loggers(["kepd"])
    with pytest.raises(ValueError, match="kept is given twice"):
        check_loggers(["kept:a", "kept:b"])
    assert check_loggers(["kept:a:b", "failing"]) == {"kept": "a:b", "failing": None}


def test_a_logger_without_its_extra_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Kept, "package", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elision\[kept\]'"):
        check_loggers(["kept"])
