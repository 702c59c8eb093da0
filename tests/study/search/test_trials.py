"""Trials: the test is never read, a pause changes nothing, the store trains once."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from elision.common.workers import pool
from elision.methods import Swat
from elision.study.search import trial as trial_module
from elision.study.search.halving import Halving
from elision.study.search.racing import raced
from elision.study.search.trial import Trial, TrialResult
from elision.study.search.trials import Trials
from elision.training import Execution
from elision.training.loop import TrainResult, train
from elision.workloads import Workload
from elision.workloads.data import Dataset

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=3,
    train_images=160,
    model_options={"width": 8},
)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs up to which this process was asked to train, in order."""
    asked: list[int] = []

    def counted(*args, **kwargs) -> TrainResult:  # type: ignore[no-untyped-def]
        asked.append(args[3].pause_after)
        return train(*args, **kwargs)

    monkeypatch.setattr(trial_module, "train", counted)
    return asked


def test_a_trial_is_its_description() -> None:
    trial = Trial(
        workload=SMALL, recipe=Swat(0.5), seed=3, execution=Execution(memory="bits(4)")
    )
    again = Trial.from_dict(json.loads(json.dumps(trial.to_dict())))
    assert again == trial
    assert again.key == trial.key
    others = [
        replace(trial, seed=4),
        replace(trial, recipe=Swat(0.6)),
        replace(trial, held_out=0.3),
        replace(trial, workload=replace(SMALL, epochs=4)),
        replace(trial, execution=Execution()),
    ]
    assert len({trial.key, *(other.key for other in others)}) == 6


def test_a_promoted_trial_equals_one_that_never_paused(tmp_path: Path) -> None:
    for recipe in ("swat:sparsity=0.5", "rigl:sparsity=0.5"):
        trial = Trial(workload=SMALL, recipe=recipe)
        trials = Trials(tmp_path)
        part = [trials.result(trial, epochs) for epochs in (1, 3)]
        whole = trial.trained(3)
        assert part[1] == whole
        assert part[0].scores == whole.scores[:1]
        assert part[0].steps * 3 == whole.steps == 3 * 2
        assert part[0].examples == 128  # 160 without the held-out fifth
        assert 0 < whole.done_macs < whole.dense_macs


def test_a_checkpoint_further_on_does_not_change_an_answer(tmp_path: Path) -> None:
    trial = Trial(workload=SMALL, recipe="swat:sparsity=0.5")
    trial.trained(3, tmp_path)
    assert trial.trained(1, tmp_path) == trial.trained(1)


def test_the_test_examples_are_never_read() -> None:
    trial = Trial(workload=SMALL)
    whole, apart = SMALL.load_dataset(), trial.data()
    assert isinstance(apart, Dataset)
    tested = {image.numpy().tobytes() for image in whole.test_images}
    trained = {image.numpy().tobytes() for image in whole.train_images}
    read = torch.cat([apart.train_images, apart.test_images])
    assert {image.numpy().tobytes() for image in read} <= trained
    assert not {image.numpy().tobytes() for image in read} & (tested - trained)


def test_what_is_there_is_read(tmp_path: Path, trainings: list[int]) -> None:
    trial, trials = Trial(workload=SMALL), Trials(tmp_path / "store")
    first = trials.result(trial, 1)
    assert trials.result(trial, 1) == first
    assert trainings == [1]
    with pool(1) as here:
        assert trials.submit(here, trial, 1).result() == first
        assert trials.submit(here, trial, 2).result().epochs == 2
    assert trainings == [1, 2]
    spent = trials.spent()
    assert (spent.trials, spent.epochs, spent.steps) == (1, 2, 4)
    assert spent.full_trainings == pytest.approx(2 / 3)
    assert spent.processor_seconds is not None
    assert spent.processor_seconds > 0
    seconds = (trials.place(trial) / "seconds.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in seconds] == [0, 1]
    trials.settle()
    assert not list(tmp_path.rglob("*.safetensors"))
    assert trials.result(trial, 2).epochs == 2
    assert trainings == [1, 2]


def test_processes_at_one_trial_train_it_once(
    tmp_path: Path, trainings: list[int]
) -> None:
    trial, trials = Trial(workload=SMALL), Trials(tmp_path)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: trials.result(trial, 1), range(3)))
    assert found[0] == found[1] == found[2]
    assert trainings == [1]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    trial, trials = Trial(workload=SMALL), Trials(tmp_path)
    trials.result(trial, 1)
    path = trials.place(trial) / "after-1.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"after-1\.json: not a readable file"):
        trials.result(trial, 1)


def test_a_trial_at_nan_is_the_worst_and_says_why(tmp_path: Path) -> None:
    wild = replace(SMALL, learning_rate=1e30)
    trials, good = Trials(tmp_path), Trial(workload=SMALL)
    lost = Trial(workload=wild)
    found = trials.result(lost, 2)
    assert math.isnan(found.score)
    assert "nan" in (found.diverged or "")
    again = trials.known(lost, 2)
    assert again is not None
    assert again.diverged == found.diverged
    assert math.isnan(again.score)
    assert lost.loss(found) == math.inf
    assert good.loss(trials.result(good, 1)) < 0  # accuracy, its sign turned
    with pool(1) as here:
        race = raced([lost, good, lost], Halving(3, (1, 2)), trials, here)
    assert race.best == 1


def test_wrong_trials_are_refused() -> None:
    for make, message in (
        (lambda: Trial(workload=SMALL, recipe="swatt"), "unknown recipe 'swatt'"),
        (lambda: Trial(workload=SMALL, held_out=1.0), r"trial\(held_out=1.0\)"),
        (lambda: Trial(workload=SMALL, seed=-1), r"trial\(seed=-1\)"),
        (lambda: Trial(workload=SMALL).trained(4), r"trial\(epochs=4\).*\[1, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_a_recipes_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(Swat(0.5).to_toml())
    trial = Trial(workload=SMALL, recipe=str(path))
    path.write_text(Swat(0.9).to_toml())
    assert trial.recipe == Swat(0.5)
    assert trial.key == Trial(workload=SMALL, recipe=Swat(0.5)).key


def test_a_result_is_its_plain_values() -> None:
    found = TrialResult((0.5,), (1.0,), 2, 128, 1e6, 5e5, saved_bytes=(10, 5))
    plain = json.loads(json.dumps(found.to_dict()))
    assert TrialResult.from_dict(plain) == found
