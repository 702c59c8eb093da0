"""A mask selects: what is not finite behind it is zero, and enters no score."""

import math
from typing import Any

import pytest
import torch
from sparse_models import MOVING, OPTIMISERS, elided, gradient, train
from torch import Tensor

from elision import methods
from elision.topology.selection import best

VALUES = [math.nan, math.inf, -math.inf]
ZEROED = ["static", "set", "rigl", "dsr", "srigl", "gradual"]


def start(method: Any, **how: Any) -> tuple[Any, Any, Any]:
    return elided(method, **how)


def sparse(topology: Any) -> Any:
    """A weight with something outside its mask."""
    return next(w for w in topology.weights if not w.mask.all())


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["static", "set", "rigl", "rigl-gathered", "dsr"])
def test_a_weight_behind_the_mask_is_zero_after_a_step(name: str, value: float) -> None:
    model, optimizer, topology = start(MOVING[name])
    train(model, optimizer, range(1))
    weight = sparse(topology)
    gradient(model, optimizer, 1)
    with torch.no_grad():
        weight.weight[~weight.mask] = value
    optimizer.step()
    assert not weight.weight[~weight.mask].any()
    assert torch.isfinite(weight.weight).all()


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["static", "set", "rigl", "dsr"])
def test_a_gradient_behind_the_mask_is_zero_at_a_step(
    name: str, optimizer: str, value: float
) -> None:
    model, made, topology = start(MOVING[name], optimizer=OPTIMISERS[optimizer])
    weight = sparse(topology)
    gradient(model, made, 0)
    assert weight.weight.grad is not None
    weight.weight.grad[~weight.mask] = value
    made.step()
    assert not weight.weight.grad[~weight.mask].any()
    for kept in (weight.weight, *made.state[weight.weight].values()):
        assert torch.isfinite(kept).all()


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["set", "dsr", "srigl"])
def test_momentum_behind_the_mask_is_zero_after_a_move(name: str, value: float) -> None:
    model, optimizer, topology = start(MOVING[name])
    train(model, optimizer, range(2))
    for weight in topology.weights:
        optimizer.state[weight.weight]["momentum_buffer"][~weight.mask] = value
    train(model, optimizer, range(2, 3))
    moved = {move.layer for move in topology.history if move.step == 3}
    assert moved
    for weight in topology.weights:
        if weight.name in moved:
            kept = optimizer.state[weight.weight]["momentum_buffer"]
            assert torch.isfinite(kept).all()
            assert torch.isfinite(weight.weight[weight.mask]).any()


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["rigl-gathered", "snfs-gradient"])
def test_a_gradient_that_is_not_finite_enters_no_average(
    name: str, value: float
) -> None:
    model, optimizer, topology = start(MOVING[name])
    train(model, optimizer, range(1))
    gradient(model, optimizer, 1)
    before = [w.state("score").clone() for w in topology.weights]
    model[3].weight.grad[0, 0, 0, 0] = value
    optimizer.step()
    after = [w.state("score") for w in topology.weights]
    assert all(map(torch.equal, before, after))
    assert topology.step == 3


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["snfs", "swat-m"])
def test_a_momentum_that_is_not_finite_keeps_the_budget(
    name: str, value: float
) -> None:
    model, optimizer, topology = start(MOVING[name])
    train(model, optimizer, range(2))
    nnz = topology.nnz
    optimizer.state[model[3].weight]["momentum_buffer"][0, 0] = value
    gradient(model, optimizer, 2)
    model[3].weight.grad.zero_()
    optimizer.step()
    if name == "snfs":
        assert topology.nnz == nnz
    densities = [w.density for w in topology.weights]
    assert all(0 < density <= 1 for density in densities)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_thresholds_do_not_learn_from_what_is_not_finite(value: float) -> None:
    model, optimizer, topology = start(methods.DST(alpha=0.05))
    train(model, optimizer, range(3))
    gradient(model, optimizer, 3)
    model[3].weight.grad[0, 0, 0, 0] = value
    optimizer.step()
    assert all(torch.isfinite(t).all() for t in topology.trained.values())


@pytest.mark.parametrize("value", VALUES)
def test_a_pull_selects_what_is_left_out(value: float) -> None:
    model, optimizer, _ = start(methods.NM(2, 4, decay=0.5))
    gradient(model, optimizer, 0)
    with torch.no_grad():
        model[7].weight[0, 0] = value  # kept: the largest of its group
    optimizer.step()
    assert torch.isfinite(model[7].weight[0, 4:]).all()
    assert torch.isfinite(model[7].weight[1:]).all()


def scores(*values: float) -> Tensor:
    return torch.tensor(values)


def test_nan_is_the_lowest_score_that_may_be_chosen() -> None:
    g = torch.Generator().manual_seed(0)
    found = best(scores(math.nan, 2.0, -math.inf, -5.0, math.nan), 2, g)
    assert found.tolist() == [False, True, False, True, False]
    found = best(scores(math.nan, 2.0, -math.inf, -5.0, math.inf), 4, g)
    assert found.tolist() == [True, True, False, True, True]
    with pytest.raises(ValueError, match="only 2 may be chosen"):
        best(scores(math.nan, 2.0, -math.inf), 3, g)


@pytest.mark.parametrize("name", ["set", "rigl", "snfs", "dsr"])
def test_an_active_weight_that_is_not_a_number_costs_no_budget(name: str) -> None:
    model, optimizer, topology = start(MOVING[name])
    train(model, optimizer, range(2))
    nnz = topology.nnz
    gradient(model, optimizer, 2)
    with torch.no_grad():
        weight = sparse(topology)
        place = weight.mask.nonzero()[0]
        weight.weight[tuple(place)] = math.nan
    optimizer.step()
    assert topology.nnz == nnz
