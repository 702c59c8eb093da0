"""A run that stops early and goes on: the same run as one without a pause."""

from pathlib import Path

import pytest
import torch

from elision.methods import make_recipe
from elision.training.checkpoint import CHECKPOINT
from elision.training.loop import RunPlan, TrainResult, train
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=4,
    train_images=192,
    test_images=50,
    model_options={"width": 16},
)
DATA = SMALL.load_dataset()


def run(recipe: str, pause: int | None, folder: Path | None = None) -> TrainResult:
    made = make_recipe(recipe, steps=SMALL.epochs * SMALL.steps_per_epoch(DATA))
    return train(SMALL, made, DATA, RunPlan(pause_after=pause), folder=folder)


@pytest.mark.parametrize("recipe", ["swat(0.5)", "rigl(0.5)", "meprop(0.5)"])
def test_a_paused_run_goes_on_to_the_same_numbers(recipe: str, tmp_path: Path) -> None:
    whole = run(recipe, None)
    for pause in (1, 3, 3, None):
        part = run(recipe, pause, tmp_path)
        assert part.history == whole.history[: pause or 4]
    assert part.meter.total() == whole.meter.total()
    state = part.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_pause_behind_the_end_is_none(tmp_path: Path) -> None:
    assert len(run("dense", 9, tmp_path).history) == 4
    assert (tmp_path / CHECKPOINT).is_file()
    with pytest.raises(ValueError, match=r"RunPlan\(pause_after=0\)"):
        RunPlan(pause_after=0)


def test_traces_that_a_killed_process_left_are_removed(tmp_path: Path) -> None:
    run("dense", 1, tmp_path)
    (trace,) = tmp_path.glob("trace-*.safetensors")
    for left in ("trace-0.safetensors", "trace-7.safetensors"):
        (tmp_path / left).write_bytes(trace.read_bytes())
    run("dense", 1, tmp_path)
    assert list(tmp_path.glob("trace-*.safetensors")) == [trace]
