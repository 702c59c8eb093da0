"""What attach keeps alive, and what it lets go."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import elision
from elision.methods import DST, RigL, Static


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(8, 20)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("engine", ["torch", "auto"])
@pytest.mark.parametrize("recipe", [Static(0.5), RigL(0.5, every=2, until=9), DST()])
def test_a_model_is_freed_with_its_optimiser(
    recipe: elision.Recipe, engine: str
) -> None:
    def run() -> tuple[weakref.ref[nn.Module], weakref.ref[torch.Tensor]]:
        model = elision.elide(network(), recipe, engine=engine)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        elision.topology.attach(model, optimizer)
        step(model, optimizer)
        return weakref.ref(model), weakref.ref(next(model.parameters()))

    model, weight = run()
    gc.collect()
    assert model() is None
    assert weight() is None


def test_masks_move_though_nobody_keeps_the_controller() -> None:
    model = elision.elide(network(), RigL(0.5, every=2, until=9))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = elision.topology.attach(model, optimizer).digest()
    gc.collect()
    for _ in range(4):
        step(model, optimizer)
    assert elision.topology.attach(model, optimizer).digest() != before


def test_a_second_attach_takes_the_place_of_one_that_nobody_kept() -> None:
    model = elision.elide(network(), RigL(0.5, every=2, until=9))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    elision.topology.attach(model, optimizer)
    gc.collect()
    topology = elision.topology.attach(model, optimizer)
    for _ in range(3):
        step(model, optimizer)
    assert topology.step == 4


def test_gradients_are_masked_though_nobody_keeps_the_optimiser() -> None:
    model = elision.elide(network(), Static(0.8, dense=()), engine="torch")
    elision.topology.attach(model, torch.optim.SGD(model.parameters(), 0.1))
    gc.collect()
    model(torch.randn(8, 20)).square().sum().backward()
    for weight in (model[0].weight, model[2].weight):
        assert isinstance(weight.grad, torch.Tensor)
        assert not weight.grad[weight == 0].any()


def test_a_copy_of_an_attached_model_has_no_controller() -> None:
    model = elision.elide(network(), RigL(0.5, every=2, until=9))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    topology = elision.topology.attach(model, optimizer)
    twin = copy.deepcopy(model)
    other = torch.optim.SGD(twin.parameters(), 0.1)
    again = elision.topology.attach(twin, other)
    for _ in range(3):
        step(model, optimizer)
    assert (topology.step, again.step) == (4, 1)
