"""Masks read true gradients, and count the steps that an optimiser really takes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from elision import methods

Optimizer = Callable[[Any], torch.optim.Optimizer]

RECIPES = {
    "dst": lambda: methods.DST(alpha=1e-2),
    "rigl": lambda: methods.RigL(0.8, every=3, until=40),
    "gathered": lambda: methods.RigL(0.8, every=3, until=40, growth="gathered"),
    "top-kast": lambda: methods.TopKAST(0.8, backward_sparsity=0.5),
}
FUSED: dict[str, Optimizer] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5)
    )


def start(recipe: str, optimizer: Optimizer) -> tuple[nn.Module, Any, Any]:
    model = elision.elide(network(), RECIPES[recipe](), engine="torch")
    made = optimizer(model.parameters())
    return model, made, elision.topology.attach(model, made)


def loss(model: nn.Module, number: int) -> Tensor:
    x = torch.randn(16, 20, generator=torch.Generator().manual_seed(number))
    return F.cross_entropy(model(x), x[:, :5].argmax(1))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {n: v.clone() for n, v in model.state_dict().items()}


@pytest.mark.parametrize("optimizer", FUSED)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_scaled_run_is_the_run_without_a_scale(recipe: str, optimizer: str) -> None:
    found = []
    for scale in (1.0, 2.0**12):  # a power of two scales without rounding
        model, made, _ = start(recipe, FUSED[optimizer])
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        for number in range(10):
            made.zero_grad()
            scaler.scale(loss(model, number)).backward()
            scaler.step(made)
            scaler.update()
        found.append(state(model))
    for name, expected in found[0].items():
        assert torch.allclose(found[1][name], expected, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("optimizer", FUSED)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_skipped_step_counts_nowhere(
    recipe: str, optimizer: str, value: float
) -> None:
    model, made, topology = start(recipe, FUSED[optimizer])
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for number in range(4):
        made.zero_grad()
        scaler.scale(loss(model, number)).backward()
        before, step = state(model), topology.step
        if number == 2:
            parameter = next(model.parameters())
            assert parameter.grad is not None
            parameter.grad[0, 0] = value
        scaler.step(made)
        scaler.update()
        assert topology.step == step + (number != 2)
        if number == 2:
            after = state(model)
            assert all(torch.equal(after[n], v) for n, v in before.items())
    assert all(torch.isfinite(v).all() for v in state(model).values())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("cleared", [True, False])
def test_a_step_without_backward_moves_nothing(recipe: str, cleared: bool) -> None:
    model, made, topology = start(recipe, lambda p: torch.optim.SGD(p, lr=0.05))
    if cleared:  # after a real step, whose gradients are gone
        loss(model, 0).backward()
        made.step()
        made.zero_grad()
    before, step, digest = state(model), topology.step, topology.digest()
    for _ in range(7):
        made.step()
    assert (topology.step, topology.digest()) == (step, digest)
    assert all(torch.equal(state(model)[n], v) for n, v in before.items())
