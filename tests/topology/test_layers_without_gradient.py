"""No gradient is not a zero gradient: what does not learn in a step stays as it is."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_models import MOVING
from torch import Tensor, nn

import elision
from elision import methods
from elision.topology import ScheduleWarning

NAMES = [name for name in MOVING if name != "static"]
MASKED = [name for name in NAMES if name not in ("dst", "swat-m", "n-m")]
MASK = "elision_weight_for_forward_mask"


class Branches(nn.Module):
    """Two branches of which a pass takes one, and a layer that no pass calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(16, 16)
        self.left, self.right = nn.Linear(16, 16), nn.Linear(16, 16)
        self.never = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)
        self.takes = "left"

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.get_submodule(self.takes)(x)))


def made(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    g = torch.Generator().manual_seed(number)
    x, y = torch.randn(16, 16, generator=g), torch.randint(0, 4, (16,), generator=g)
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def of_layer(model: nn.Module, optimizer: Any, layer: str) -> list[Tensor]:
    """All that belongs to a layer: weight, masks, scores, optimiser state."""
    module = model.get_submodule(layer)
    values = [
        v for name, v in module._buffers.items() if "gradient_density" not in name
    ]
    values += [*module.parameters(), *optimizer.state[module.weight].values()]
    return [v.detach().clone() for v in values if isinstance(v, Tensor)]


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return len(before) == len(after) and all(map(torch.equal, before, after))


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_layer_stays_and_the_others_move(name: str) -> None:
    model = Branches()
    model.left.weight.requires_grad_(False)
    model.left.bias.requires_grad_(False)
    elision.elide(model, MOVING[name], engine="torch")
    optimizer = made(model)
    topology = elision.topology.attach(model, optimizer)
    before = of_layer(model, optimizer, "left")
    stem = of_layer(model, optimizer, "stem")
    for number in range(13):
        step(model, optimizer, number)
    assert topology.step == 14
    assert same(before, of_layer(model, optimizer, "left"))
    assert not same(stem, of_layer(model, optimizer, "stem"))
    moved = {move.layer for move in topology.history}
    assert moved.isdisjoint({"left", "never", "right"})


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_that_is_never_called_stays(name: str) -> None:
    model = elision.elide(Branches(), MOVING[name], engine="torch")
    optimizer = made(model)
    elision.topology.attach(model, optimizer)
    before = of_layer(model, optimizer, "never")
    for number in range(13):
        step(model, optimizer, number)
    assert same(before, of_layer(model, optimizer, "never"))


@pytest.mark.parametrize("name", NAMES)
def test_a_branch_stays_in_the_steps_that_do_not_take_it(name: str) -> None:
    model = elision.elide(Branches(), MOVING[name], engine="torch")
    optimizer = made(model)
    topology = elision.topology.attach(model, optimizer)
    budget = topology.nnz
    for number in range(18):
        model.takes, other = ("left", "right") if number % 2 else ("right", "left")
        before = of_layer(model, optimizer, other)
        step(model, optimizer, number)
        assert same(before, of_layer(model, optimizer, other)), number
    moved = {move.layer for move in topology.history}
    if moved:
        assert {"left", "right"} <= moved
    if name not in ("gradual", "dst", "swat-m", "n-m", "srigl"):
        assert topology.nnz == budget


@pytest.mark.parametrize("name", ["rigl", "snfs", "dsr"])
def test_a_layer_unfrozen_later_learns_and_moves(name: str) -> None:
    model = Branches()
    model.left.weight.requires_grad_(False)
    elision.elide(model, MOVING[name], engine="torch")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)  # without the frozen one
    topology = elision.topology.attach(model, optimizer)
    for number in range(4):
        step(model, optimizer, number)
    before = model.left.weight.detach().clone()
    model.left.weight.requires_grad_(True)
    optimizer.add_param_group({"params": [model.left.weight]})
    for number in range(4, 11):
        step(model, optimizer, number)
    assert not torch.equal(model.left.weight, before)
    assert any(move.layer == "left" for move in topology.history)
    mask = topology.masks()["left"]
    assert not model.left.weight[~mask].any()


def test_gradients_of_an_unfrozen_layer_are_masked_after_backward() -> None:
    model = Branches()
    model.left.weight.requires_grad_(False)
    elision.elide(model, methods.Static(0.8), engine="torch")
    optimizer = made(model)
    topology = elision.topology.attach(model, optimizer)
    assert not model.left.weight.requires_grad
    model.left.weight.requires_grad_(True)
    F.cross_entropy(
        model(torch.randn(8, 16)), torch.zeros(8, dtype=torch.long)
    ).backward()
    grad = model.left.weight.grad
    assert grad is not None
    assert grad.any()
    assert not grad[~topology.masks()["left"]].any()


def test_a_pruned_layer_catches_up_after_the_end_of_the_schedule() -> None:
    model = elision.elide(
        Branches(), methods.Gradual(0.8, end=6, every=3), engine="torch"
    )
    optimizer = made(model)
    topology = elision.topology.attach(model, optimizer)
    for number in range(7):
        step(model, optimizer, number)
    assert topology.masks()["right"].all()
    model.takes = "right"
    with pytest.warns(
        ScheduleWarning, match=r"ends at sparsity 0\.\d+ .* target is 0\.8"
    ):
        topology.detach()
    topology = elision.topology.attach(model, optimizer)
    for number in range(7, 13):
        step(model, optimizer, number)
    assert not topology.masks()["right"].all()


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("snfs", "swat-m")])
def test_a_gradient_that_was_set_to_zero_is_none(name: str) -> None:
    model = elision.elide(Branches(), MOVING[name], engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    topology = elision.topology.attach(model, optimizer)
    step(model, optimizer, 0)
    model.takes = "right"
    step(model, optimizer, 1)
    for _ in range(4):  # no backward pass in these steps, and zeros for gradients
        optimizer.zero_grad(set_to_none=False)
        before = {n: v.clone() for n, v in model.state_dict().items()}
        optimizer.step()
        assert all(torch.equal(model.state_dict()[n], v) for n, v in before.items())
    assert topology.step == 3
    for number in range(2, 11):
        optimizer.zero_grad(set_to_none=False)
        mask = model.left.get_buffer(MASK).clone() if name in MASKED else None
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(number))
        F.cross_entropy(model(x), torch.zeros(8, dtype=torch.long)).backward()
        optimizer.step()
        if mask is not None:
            assert torch.equal(model.left.get_buffer(MASK), mask)


def test_a_zero_gradient_of_a_backward_pass_is_one() -> None:
    model = elision.elide(Branches(), methods.RigL(0.8, every=2), engine="torch")
    optimizer = made(model)
    topology = elision.topology.attach(model, optimizer)
    for number in range(2):
        optimizer.zero_grad()
        (0 * model(torch.randn(8, 16))).sum().backward()
        optimizer.step()
        assert topology.step == number + 2
    assert {move.layer for move in topology.history} >= {"left", "head"}


def test_a_gradient_given_by_hand_is_one() -> None:
    model = elision.elide(Branches(), methods.RigL(0.8, every=2), engine="torch")
    optimizer = made(model)
    topology = elision.topology.attach(model, optimizer)
    for _ in range(2):
        model.never.weight.grad = torch.ones(16, 16)
        optimizer.step()
    assert {move.layer for move in topology.history} == {"never"}
