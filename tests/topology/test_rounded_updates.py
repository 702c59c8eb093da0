"""Weights that are held in a format between the steps."""

import copy
import warnings

import pytest
import torch
from torch import nn

import elision
from elision.formats import round as rounded
from elision.methods import Bf16, Dfp16, RigL, Swat
from elision.topology import UnattachedWarning


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


def made(recipe: elision.Recipe, **how: float) -> tuple[nn.Sequential, torch.optim.SGD]:
    model = elision.elide(net(), recipe, engine="torch")
    settings = {"lr": 1e-3, "momentum": 0.9} | how
    return model, torch.optim.SGD(model.parameters(), **settings)


def is_held(model: nn.Sequential, name: str) -> bool:
    weights = [layer.weight.detach() for layer in model if isinstance(layer, nn.Linear)]
    return all(torch.equal(rounded(w, name, axis=1), w) for w in weights)


@pytest.mark.parametrize("name", ["bf16", "fp8-e4m3", "mxfp8", "dfp8"])
def test_weights_are_in_the_format_after_every_step(name: str) -> None:
    model, optimizer = made(Bf16(updates=name, update_rounding="nearest"))
    elision.topology.attach(model, optimizer)
    assert is_held(model, name)
    for number in range(3):
        step(model, optimizer, number)
        assert is_held(model, name)
    assert not torch.equal(
        rounded(model[0].bias.detach(), "fp8-e4m3"), model[0].bias.detach()
    )


def test_a_channel_of_a_weight_is_an_output() -> None:
    model, optimizer = made(Bf16(updates="int8-channel", update_rounding="nearest"))
    elision.topology.attach(model, optimizer)
    step(model, optimizer, 0)
    for layer in (model[0], model[2]):
        for row in layer.weight.detach():
            assert torch.equal(rounded(row, "int8"), row)


def test_small_updates_survive_stochastic_rounding_alone() -> None:
    ends = {}
    for rounding in ("nearest", "stochastic"):
        model, optimizer = made(
            Bf16(updates="bf16", update_rounding=rounding), lr=1e-6, momentum=0.0
        )
        elision.topology.attach(model, optimizer)
        first = model[0].weight.detach().clone()
        for number in range(20):
            step(model, optimizer, number)
        ends[rounding] = int((model[0].weight != first).sum())
    assert ends["nearest"] < ends["stochastic"]


def test_it_resumes_to_the_last_bit() -> None:
    recipe = RigL(0.5, every=2, until=20) + Dfp16(updates="fp8-e5m2")
    model, optimizer = made(recipe)
    elision.topology.attach(model, optimizer)
    for number in range(3):
        step(model, optimizer, number)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    other, its = made(recipe)
    elision.topology.attach(other, its)
    other.load_state_dict(saved[0])
    its.load_state_dict(saved[1])
    for number in range(3, 8):
        step(model, optimizer, number)
        step(other, its, number)
    found = other.state_dict()
    assert all(torch.equal(v, found[n]) for n, v in model.state_dict().items())
    assert is_held(model, "fp8-e5m2")
    assert int((model[0].weight == 0).sum()) >= model[0].weight.numel() // 3


def test_several_optimisers_closures_and_skipped_steps() -> None:
    model, _ = made(Bf16(updates="bf16"))
    first = torch.optim.SGD(model[0].parameters(), lr=1e-3)
    second = torch.optim.LBFGS(model[2].parameters(), lr=1e-3, max_iter=2)
    elision.topology.attach(model, [first, second])
    x = torch.randn(16, 8)

    def closure() -> torch.Tensor:
        second.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    for _ in range(2):
        second.step(closure)
        first.step()
        assert is_held(model, "bf16")
    counted = model.state_dict()["elision_updates_step"]
    assert counted.tolist() == [2, 2]


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for number in range(count):
        step(model, optimizer, number)


def test_without_attach_it_says_so_once() -> None:
    model, optimizer = made(Bf16(updates="bf16"))
    with pytest.warns(UnattachedWarning, match="weights of bf16 are not rounded"):
        _steps(model, optimizer, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(model, optimizer, 3)


def test_restore_leaves_a_plain_model() -> None:
    model, optimizer = made(Swat(0.5) + Bf16(updates="bf16"))
    elision.topology.attach(model, optimizer)
    step(model, optimizer, 0)
    elision.restore(model)
    assert set(model.state_dict()) == set(net().state_dict())
    step(model, optimizer, 1)
    assert not is_held(model, "bf16")
