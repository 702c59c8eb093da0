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


@pytest.mark.parametrize(
    "method", ["dense", "swat", "resprop", "meprop", "rigl", "dst"]
)
@pytest.mark.parametrize("engine", ["torch", "auto", "native"])
def test_an_empty_batch_gives_an_empty_result_and_moves_nothing(
    method: str, engine: str
) -> None:
    model = elision.elide(network(), elision.methods.make_recipe(method), engine=engine)
    state = {n: v.clone() for n, v in model.state_dict().items()}
    x = torch.zeros(0, 3, 9, 9, requires_grad=True)
    y = model(x)
    assert y.shape == network()(x).shape
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
    assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())


def test_a_refused_recipe_leaves_the_model_plain() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    x = torch.randn(3, 8)
    expected, names = model(x), list(model.state_dict())
    with pytest.raises(ValueError, match="divi"):
        elision.elide(model, elision.methods.NM(2, 4, dense=()), engine="torch")
    assert type(model[2]) is nn.Linear
    assert list(model.state_dict()) == names
    assert torch.equal(model(x), expected)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_layers_without_weights_are_named() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.LazyLinear(4))
    with pytest.warns(NoEffectWarning, match="without weights stay dense: 1;"):
        elision.elide(model, Swat(0.5, dense=()), engine="torch")


@pytest.mark.parametrize("method", ["static", "rigl", "gradual"])
def test_masks_of_a_model_without_memory_are_refused(method: str) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    with pytest.raises(ValueError, match="meta device"):
        elision.elide(model, elision.methods.make_recipe(method), engine="torch")
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("recipe", ["swat", "fp8", "meprop", "bf16"])
def test_a_model_without_memory_runs_elided(recipe: str, autocast: bool) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 4))
        x = torch.empty(2, 3, 8, 8)
    elision.elide(model, recipe)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = model(x)
    y.sum().backward()
    assert y.shape == (2, 4)
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())
