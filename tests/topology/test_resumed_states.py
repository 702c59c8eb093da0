"""States in every order, and rules that follow what is given now."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sparse_models import OPTIMISERS, gradient, sgd, small_net, train
from torch import Tensor, nn

import elision
from elision import methods


def dst(seed: int = 0) -> nn.Module:
    return elision.elide(small_net(seed), methods.DST(alpha=0.05), engine="torch")


def grouped(model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay for matrices and kernels alone, with names."""
    named = list(model.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.dim() > 1], "weight_decay": 1e-3},
        {"params": [(n, p) for n, p in named if p.dim() == 1]},
    ]
    return torch.optim.AdamW(groups, lr=1e-2)


MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    **{name: OPTIMISERS[name] for name in ("sgd", "plain-sgd", "adamw", "rmsprop")},
    "groups": grouped,
}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("first", ["load", "attach"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_state_of_learned_thresholds_loads_in_either_order(
    name: str, first: str
) -> None:
    model = dst()
    optimizer = MAKERS[name](model)
    elision.topology.attach(model, optimizer)
    train(model, optimizer, range(5))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, range(5, 10))

    again = dst(seed=1)
    other = MAKERS[name](again)
    if first == "attach":
        elision.topology.attach(again, other)
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    if first == "load":
        elision.topology.attach(again, other)
    train(again, other, range(5, 10))
    assert same(model.state_dict(), again.state_dict())


def test_a_saved_state_has_a_number_for_each_parameter_of_the_model() -> None:
    model = dst()
    optimizer = grouped(model)
    own = [len(group["params"]) for group in optimizer.param_groups]
    elision.topology.attach(model, optimizer)
    train(model, optimizer, range(2))
    saved = optimizer.state_dict()
    numbers = [n for group in saved["param_groups"] for n in group["params"]]
    assert [len(group["params"]) for group in saved["param_groups"]] == own
    assert numbers == list(range(sum(own)))
    assert set(saved["state"]) == set(numbers)
    names = [n for group in saved["param_groups"] for n in group["param_names"]]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())


def test_a_state_that_lists_thresholds_among_the_parameters_still_loads() -> None:
    model = dst()
    optimizer = sgd(model)
    topology = elision.topology.attach(model, optimizer)
    train(model, optimizer, range(3))
    saved = torch.optim.Optimizer.state_dict(optimizer)
    group = saved["param_groups"][0]
    for name, state in group.pop("elision_trained").items():
        number = len(group["params"])
        group["params"].append(number)
        saved["state"][number] = state
        assert name in topology.trained
    again = dst(seed=1)
    other = sgd(again)
    resumed = elision.topology.attach(again, other)
    other.load_state_dict(copy.deepcopy(saved))
    for name, parameter in resumed.trained.items():
        momentum = optimizer.state[topology.trained[name]]["momentum_buffer"]
        assert torch.equal(other.state[parameter]["momentum_buffer"], momentum)


def test_two_attaches_keep_one_threshold_a_layer() -> None:
    model = dst()
    optimizer = sgd(model)
    elision.topology.attach(model, optimizer)
    train(model, optimizer, range(2))
    topology = elision.topology.attach(model, optimizer)
    train(model, optimizer, range(2))
    saved = optimizer.state_dict()
    assert len(saved["param_groups"][0]["elision_trained"]) == len(topology.weights)
    optimizer.load_state_dict(saved)
    train(model, optimizer, range(2))


ENGINES = ["torch", "native", "auto"]


def outside(topology: Any) -> bool:
    """Whether any gradient is left outside the masks."""
    return any(bool(w.weight.grad[~w.mask].any()) for w in topology.weights)


def resumed(method: Any, saved: dict[str, Tensor], engine: str, first: str) -> Any:
    model = elision.elide(small_net(1), method, engine=engine)
    optimizer = sgd(model)
    if first == "load":
        model.load_state_dict(saved)
    topology = elision.topology.attach(model, optimizer)
    if first == "attach":
        model.load_state_dict(saved)
    return model, optimizer, topology


@pytest.mark.filterwarnings("ignore:this state was saved by:UserWarning")
@pytest.mark.parametrize("first", ["load", "attach"])
@pytest.mark.parametrize("engine", ENGINES)
def test_another_period_is_followed_from_the_next_step(engine: str, first: str) -> None:
    model = elision.elide(small_net(), methods.RigL(0.8, every=10), engine=engine)
    optimizer = sgd(model)
    elision.topology.attach(model, optimizer)
    train(model, optimizer, range(4))
    saved = copy.deepcopy(model.state_dict())
    more = methods.RigL(0.8, every=5)
    model, optimizer, topology = resumed(more, saved, engine, first)
    gradient(model, optimizer, 4)
    assert outside(topology)
    optimizer.step()
    assert {move.step for move in topology.history} == {5}
    gradient(model, optimizer, 5)
    assert not outside(topology)


@pytest.mark.filterwarnings("ignore:this state was saved by:UserWarning")
@pytest.mark.parametrize("first", ["load", "attach"])
@pytest.mark.parametrize("engine", ENGINES)
def test_another_end_and_another_share_are_followed(engine: str, first: str) -> None:
    method = methods.RigL(0.8, every=3, until=18)
    model = elision.elide(small_net(), method, engine=engine)
    optimizer = sgd(model)
    elision.topology.attach(model, optimizer)
    train(model, optimizer, range(5))
    saved = copy.deepcopy(model.state_dict())
    ended = methods.RigL(0.8, every=3, until=4)
    model, optimizer, topology = resumed(ended, saved, engine, first)
    gradient(model, optimizer, 5)
    assert not outside(topology)
    optimizer.step()
    assert not topology.history
    small = methods.RigL(0.8, every=3, until=18, fraction=0.02)
    model, optimizer, topology = resumed(small, saved, engine, first)
    train(model, optimizer, range(5, 7))
    dropped = sum(move.dropped for move in topology.history)
    assert 0 < dropped <= 0.02 * topology.nnz


@pytest.mark.filterwarnings("ignore:this state was saved by:UserWarning")
@pytest.mark.parametrize("first", ["load", "attach"])
def test_another_target_is_followed(first: str) -> None:
    model = elision.elide(
        small_net(), methods.Gradual(0.5, end=6, every=3), engine="torch"
    )
    optimizer = sgd(model)
    topology = elision.topology.attach(model, optimizer)
    train(model, optimizer, range(8))
    assert topology.sparsity == pytest.approx(0.5, abs=0.01)
    saved = copy.deepcopy(model.state_dict())
    more = methods.Gradual(0.9, end=6, every=3)  # whose end is past already
    model, optimizer, topology = resumed(more, saved, "torch", first)
    train(model, optimizer, range(8, 12))
    assert topology.sparsity == pytest.approx(0.9, abs=0.01)


def test_a_state_from_before_moves_were_counted_loads() -> None:
    model = elision.elide(small_net(), methods.RigL(0.8, every=3), engine="torch")
    saved = model.state_dict()
    del saved["elision_topology_moves"]
    model.load_state_dict(saved)
    train(model, sgd(model), range(1))
    assert int(model.state_dict()["elision_topology_moves"]) == 0


def test_moves_are_counted_over_the_processes_of_a_run() -> None:
    method = methods.RigL(0.8, every=2, until=50)
    model = elision.elide(small_net(), method, engine="torch")
    optimizer = sgd(model)
    topology = elision.topology.attach(model, optimizer)
    train(model, optimizer, range(5))
    assert topology.moves == 2
    saved = copy.deepcopy(model.state_dict())
    model, optimizer, topology = resumed(method, saved, "torch", "load")
    assert topology.moves == 2
    train(model, optimizer, range(5, 7))
    assert topology.moves == 3
    topology.detach()  # without a warning
