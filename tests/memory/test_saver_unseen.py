"""What a codec multiplies is none of the model's products."""

import pytest
import torch
from torch import Tensor, nn

import elision


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 144, 4))


def loss_of(model: nn.Module, x: Tensor, policy: str) -> Tensor:
    with elision.memory.saver(model, policy, seed=0):
        return model(x).square().mean()


@pytest.mark.parametrize("policy", ["jpeg", "rad(0.5)", "bits(4)"])
@pytest.mark.parametrize("recipe", ["dense", "swat:sparsity=0.5"])
def test_recorders_and_meters_see_the_models_products_alone(
    policy: str, recipe: str
) -> None:
    model, x = (
        elision.elide(network(), recipe, engine="torch"),
        torch.randn(8, 3, 16, 16),
    )
    seen, work = {}, {}
    for kept in ("exact", policy):
        with elision.record(model) as trace, elision.metered(model) as meter:
            loss_of(model, x, kept).backward()
        seen[kept] = [(product.name, product.kind) for product in trace]
        keys = ("layer", "product", "outside", "dense_macs")
        work[kept] = [[row.get(key) for key in keys] for row in meter.to_json()]
    assert seen["exact"] == seen[policy]
    assert work["exact"] == work[policy]


@pytest.mark.parametrize("policy", ["jpeg", "rad(0.5)"])
def test_a_default_device_does_not_reach_a_codec(policy: str) -> None:
    model, x = network(), torch.randn(8, 3, 16, 16)
    loss_of(model, x, policy).backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with torch.device("meta"):
        loss = loss_of(model, x, policy)
    loss.backward()
    found = [p.grad for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
