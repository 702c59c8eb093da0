"""elide, record and the trace file."""

import pytest
import torch
from torch import nn

import elision
from elision.layers import NoEffectWarning
from elision.methods import Swat


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding="same", groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, stride=2, dilation=2),
        nn.Flatten(),
        nn.Linear(36, 5),
    )


def run(model: nn.Module, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(steps):
        x = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def test_swat_reads_and_saves_sparse_operands() -> None:
    model = elision.elide(network(), Swat(0.75), engine="torch")
    with elision.record(model) as trace:
        run(model, 1)
    for product in trace:
        if product.name == "0":
            continue
        sparse = "input" if product.kind is elision.Product.WEIGHT_GRAD else "weight"
        assert product.densities[sparse] <= 0.26


def test_a_recipe_that_reaches_nothing_warns() -> None:
    with pytest.warns(NoEffectWarning, match="changes no layer"):
        elision.elide(nn.ReLU(), Swat(0.5))
