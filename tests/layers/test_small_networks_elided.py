"""Depthwise layers, squeeze-and-excitation and their activations under recipes."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import elision
from elision import methods
from elision.layers import elided_layers
from elision.workloads import make_model

NETWORKS: dict[str, dict[str, Any]] = {
    "squeezenet": {"dropout": 0.0},
    "mobilenet-v1": {"dropout": 0.0},
    "mobilenet-v3-small": {"dropout": 0.0},
    "efficientnet-b0": {"dropout": 0.0, "stochastic_depth": 0.0},
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return make_model(
        name, classes=4, width=0.25, depth=0.5, stem_stride=1, **NETWORKS[name]
    )


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, 32, 32, generator=g), torch.arange(8) % 4


@pytest.mark.parametrize("name", NETWORKS)
def test_rigl_trains_a_small_network_and_leaves_depthwise_layers_dense(name) -> None:
    method = methods.RigL(0.6, every=2, until=8)
    model = elision.elide(network(name), method, engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    topology = elision.topology.attach(model, optimizer)
    active = topology.nnz
    before = topology.masks()
    before = {name: mask.clone() for name, mask in before.items()}
    for step in range(4):
        images, labels = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert topology.nnz == active
    assert topology.moves == 2
    assert any((before[n] != mask).any() for n, mask in topology.masks().items())
    masked = set(topology.masks())
    for layer, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            assert layer not in masked
    for weight in topology.weights:
        assert not weight.weight[~weight.mask].any()


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize("name", NETWORKS)
def test_swat_gives_the_same_gradients_on_every_engine(name, engine) -> None:
    """And leaves every depthwise and every squeezing layer in its place."""
    plain = network(name)
    model = elision.elide(copy.deepcopy(plain), methods.Swat(0.5), engine=engine)
    oracle = elision.elide(plain, methods.Swat(0.5), engine="torch")
    images, labels = batch(0)
    for one in (model, oracle):
        F.cross_entropy(one(images), labels).backward()
    depthwise = [
        layer for _, layer in elided_layers(model) if getattr(layer, "groups", 1) > 1
    ]
    assert (name == "squeezenet") == (not depthwise)
    found, wanted = (
        {key: p.grad for key, p in one.named_parameters() if p.grad is not None}
        for one in (model, oracle)
    )
    assert found.keys() == wanted.keys() == dict(model.named_parameters()).keys()
    # A bias before batch normalisation has a gradient of zero, but for rounding; and a
    # rounding may change which of two nearly equal values is kept.
    rounding = 1e-5 * max(float(g.norm()) for g in wanted.values())
    for key, gradient in found.items():
        apart = float((gradient - wanted[key]).norm())
        assert apart <= 0.02 * float(wanted[key].norm()) + rounding, key
