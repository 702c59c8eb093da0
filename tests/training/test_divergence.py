"""A value that is not finite is named by step, layer and product, wherever it arises."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from elision.common.checks import one_of
from elision.layers import elide, find_nonfinite
from elision.methods import Dense, Static, Swat
from elision.products import dense
from elision.training import RunPlan, TrainingDivergedError, train
from elision.training.divergence import first_cause, nonfinite_gradient
from elision.training.loss_scaling import LossScaling
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    model_options={"width": 16},
    epochs=1,
    batch_size=16,
    train_images=160,
    test_images=20,
)
RECIPE = Swat(0.5, dense=())

#: Sizes of the hidden layer's weight, and the step from which on it goes wrong.
HIDDEN, STEP = (16, 16), 4


def diverged(recipe: Any = RECIPE, workload: Workload = SMALL) -> str:
    with pytest.raises(TrainingDivergedError) as told:
        train(workload, recipe, SMALL.load_dataset(), RunPlan(meter_every=100))
    result = told.value.result
    assert result is not None
    assert result.diverged == str(told.value)
    assert "\n" not in str(told.value)
    return str(told.value)


def plant(monkeypatch: pytest.MonkeyPatch, which: str, value: float) -> None:
    """From :data:`STEP` on, fill a row of one result of the hidden layer with a value."""
    one_of("plant", "which", which, ("forward", "input", "weight"))
    forward, gradients, calls = dense.forward, dense.gradients, [0]

    def struck(x: Tensor | None) -> Tensor | None:
        calls[0] += 1
        if x is None or calls[0] <= STEP:
            return x
        x = x.clone()
        x[0] = value  # a row, as ReLU lets some of it through
        return x

    def forward_(
        x: Tensor, w: Tensor, b: Tensor | None, convolution: Any
    ) -> Tensor | None:
        y = forward(x, w, b, convolution)
        return struck(y) if tuple(w.shape) == HIDDEN else y

    def gradients_(*args: Any, shapes: Any, bias: bool = False) -> Any:
        dx, dw, db = gradients(*args, shapes=shapes, bias=bias)
        if tuple(shapes[1]) == HIDDEN and which == "input" and dx is not None:
            dx = struck(dx)
        if tuple(shapes[1]) == HIDDEN and which == "weight" and dw is not None:
            dw = struck(dw)
        return dx, dw, db

    if which == "forward":
        monkeypatch.setattr(dense, "forward", forward_)
    else:
        monkeypatch.setattr(dense, "gradients", gradients_)


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=["nan", "inf"])
@pytest.mark.parametrize(
    ("which", "what", "product"),
    [
        ("forward", "output", "forward"),
        ("input", "input gradient", "input-gradient"),
        ("weight", "weight gradient", "weight-gradient"),
    ],
)
def test_a_product_that_goes_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, which: str, what: str, product: str, value: float
) -> None:
    plant(monkeypatch, which, value)
    said = diverged()
    assert f" at step {STEP}: {value} in the {what} of layer '" in said
    assert said.endswith(
        f"(recipe swat), first seen as the result of its {product} product"
    )


def test_a_weight_that_the_optimiser_writes_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, calls = torch.optim.SGD.step, [0]

    def wrong(optimizer: torch.optim.SGD, *args: Any, **kwargs: Any) -> Any:
        done, calls[0] = step(optimizer, *args, **kwargs), calls[0] + 1
        if calls[0] == STEP:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].view(-1)[3] = torch.nan
        return done

    monkeypatch.setattr(torch.optim.SGD, "step", wrong)
    said = diverged()
    assert f"the loss is nan at step {STEP}: nan in the parameter '" in said
    assert said.endswith("written by the optimiser from finite gradients")


@pytest.mark.parametrize("recipe", [RECIPE, Dense()], ids=["swat", "dense"])
def test_a_gradient_that_overflows_stops_before_the_weights_do(recipe: Any) -> None:
    steep = replace(SMALL, learning_rate=1e18)
    said = diverged(recipe, steep)
    assert " at step " in said
    assert "layer '" in said


def test_a_gradient_behind_a_mask_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backward = LossScaling.backward

    def beyond(scaling: LossScaling, loss: Tensor) -> None:
        backward(scaling, loss)
        for group in scaling.optimizer.param_groups:
            for weight in group["params"]:
                if weight.dim() == 2:
                    weight.grad[weight == 0] = torch.nan

    monkeypatch.setattr(LossScaling, "backward", beyond)
    dataset = SMALL.load_dataset()
    assert train(SMALL, Static(0.5), dataset, RunPlan()).diverged is None
    monkeypatch.setattr(
        LossScaling, "backward", lambda s, loss: backward(s, loss * torch.inf)
    )
    assert "the gradient of '" in diverged(Static(0.5))


def test_what_arises_between_two_layers_is_named_by_its_module() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 10).sqrt()

    model = elide(nn.Sequential(nn.Linear(4, 3), Root(), nn.Linear(3, 2)), RECIPE)
    with find_nonfinite(model) as first:
        model(torch.ones(2, 4))
    assert first.where == "nan in the output of layer '1', first seen there"


def test_a_gradient_between_two_layers_is_named_where_it_is_read() -> None:
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0] * torch.inf

    first_layer, last = nn.Linear(4, 3), nn.Linear(3, 2)
    model = elide(nn.ModuleList([first_layer, last]), RECIPE)
    weight = first_layer.weight.detach().clone()
    with find_nonfinite(model) as first:
        last(Steep.apply(first_layer(torch.ones(2, 4)))).sum().backward()
    assert first.where is not None
    assert "in the output gradient of layer '0' (recipe swat)" in first.where
    assert torch.equal(first_layer.weight, weight)
    assert not first_layer._elision_observers  # nothing is left behind


def test_a_finite_step_and_a_loss_that_overflows_alone_say_so() -> None:
    model = elide(nn.Sequential(nn.Linear(4, 3)), RECIPE)
    x = torch.ones(2, 4)

    def cause(factor: float) -> Callable[[], Tensor]:
        return lambda: model(x).sum() * factor

    assert "the step, run again, is finite" in first_cause(model, cause(1.0))
    assert "the loss itself overflowed" in first_cause(model, cause(torch.inf))


def test_finite_gradients_whose_sum_overflows_are_finite() -> None:
    weight = nn.Parameter(torch.ones(8))
    weight.grad = torch.full((8,), 3e38)
    assert nonfinite_gradient([("w", weight)]) is None
    weight.grad[3] = -torch.inf
    assert nonfinite_gradient([("w", weight)]) == "the gradient of 'w' is inf"
    table = nn.Embedding(5, 2, sparse=True)
    (table(torch.tensor([1, 1])) * torch.nan).sum().backward()
    found = nonfinite_gradient(table.named_parameters())
    assert found == "the gradient of 'weight' is nan"
