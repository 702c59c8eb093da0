"""Loss scaling: what a recipe asks for, and a scale that does not recover."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import elision
from elision.layers.recipe import Recipe, Table
from elision.methods import Dense, Fp16, Swat
from elision.training import Execution, RunPlan, TrainingDivergedError, train
from elision.training.loss_scaling import LossScaleError, LossScaling
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=1,
    train_images=96,
    test_images=24,
    batch_size=48,
)


@pytest.mark.parametrize(
    ("recipe", "precision", "scaling"),
    [
        (Dense(), "fp32", None),
        (Dense(), "fp16", "dynamic"),
        (Fp16(), "fp32", "dynamic"),
        (Fp16(8), "fp16", 8.0),
        (Fp16(None), "fp32", None),
        (Swat(0.5) + Fp16(8), "fp32", 8.0),
        (Recipe("mine", Table()), "fp32", None),
    ],
)
def test_the_recipe_says_its_scaling(
    recipe: Recipe, precision: str, scaling: object
) -> None:
    assert Execution(precision=precision).loss_scaling(recipe) == scaling


def test_a_gradient_that_overflows_skips_the_step_and_halves_the_scale() -> None:
    layer = elision.elide(nn.Linear(4, 1, bias=False), Fp16(), engine="torch")
    with torch.no_grad():
        layer.weight.fill_(1.0)
    scaling = LossScaling("cpu", "dynamic", torch.optim.SGD(layer.parameters(), 1e-3))
    x = torch.ones(1, 4)
    taken = []
    for step in range(3):
        layer.weight.grad = None
        scaling.backward(3 * layer(x).sum())  # 3·65536 is beyond float16, 3·16384 not
        taken.append(scaling.step(step))
    assert taken == [False, False, True]
    assert scaling.scaler.get_scale() == 2.0**14


def test_a_scale_that_never_recovers_is_one_line() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaling = LossScaling("cpu", "dynamic", optimizer)
    with pytest.raises(
        LossScaleError, match=r"fell to .* and does not recover"
    ) as told:
        _overflow(scaling, optimizer, weight)
    assert "\n" not in str(told.value)
    assert weight.item() == 1.0
    fixed = LossScaling("cpu", 4.0, optimizer)
    with pytest.raises(LossScaleError, match="loss scale 4 overflowed in 50 steps"):
        _overflow(fixed, optimizer, weight)


def _overflow(
    scaling: LossScaling, optimizer: torch.optim.Optimizer, weight: nn.Parameter
) -> None:
    """A hundred steps whose gradient is infinite."""
    for step in range(100):
        optimizer.zero_grad()
        scaling.backward((weight * torch.inf).sum())
        scaling.step(step)


def test_steps_skipped_in_a_row_are_state() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaling, again = (LossScaling("cpu", 4.0, optimizer) for _ in range(2))
    scaling.backward((weight * torch.inf).sum())
    assert not scaling.step(0)
    again.load_state_dict(scaling.state_dict())
    assert again.skipped == 1
    assert again.scaler.get_scale() == 4.0
    assert not LossScaling("cpu", None, optimizer).state_dict()


def test_a_run_ends_as_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    from elision.training import loss_scaling

    # Any float16 gradient of this loss overflows: the floor is above the first scale.
    monkeypatch.setattr(loss_scaling, "LEAST_SCALE", 2.0**20)
    with pytest.raises(TrainingDivergedError, match="the loss scale fell to") as told:
        train(SMALL, Fp16(), SMALL.load_dataset(), RunPlan())
    assert told.value.result is not None
    assert told.value.result.diverged is not None


def test_a_skipped_step_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = replace(SMALL, train_images=4 * 48)
    original = LossScaling.backward

    def overflows(scaling: LossScaling, loss: torch.Tensor) -> None:
        # The third of four steps, which is the one to be recorded.
        calls.append(loss)
        original(scaling, loss * torch.inf if len(calls) == 3 else loss)

    calls: list[torch.Tensor] = []
    monkeypatch.setattr(LossScaling, "backward", overflows)
    plan = RunPlan(record_epochs=(0,))
    trace = train(steps, Fp16(8), steps.load_dataset(), plan).trace
    assert {product.step for product in trace} == {3}
    assert all(bool(product.first.isfinite().all()) for product in trace)


def test_a_run_whose_every_step_is_skipped_says_so() -> None:
    plan = RunPlan(record_epochs=(0,))
    message = (
        "loss scale 1e\\+30 overflowed in 2 steps in a row, up to the last; give a"
    )
    with pytest.raises(TrainingDivergedError, match=message) as told:
        train(SMALL, Fp16(1e30), SMALL.load_dataset(), plan)
    assert told.value.result is not None
    assert math.isnan(told.value.result.history[-1].score)
