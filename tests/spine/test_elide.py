"""elide, restore, record: against plain autograd and against interruption."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import elision
from elision.layers import NoEffectWarning
from elision.methods import Dense, MeProp, ReSprop, Swat, WReSprop
from elision.recipe import Recipe

RECIPES: list[Recipe] = [
    Dense(),
    Swat(0.5),
    Swat(0.5, refresh=2),
    ReSprop(0.5),
    WReSprop(0.5, warmup_steps=4),
    MeProp(0.3),
    MeProp(0.3, unified=True),
]


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


def run(model: nn.Module, steps: int, first: int = 0) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(first, first + steps):
        x = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_dense_equals_autograd_bit_for_bit() -> None:
    plain, elided = network(), elision.elide(network(), Dense(), engine="torch")
    assert list(plain.state_dict()) == list(elided.state_dict())
    pairs = zip(run(plain, 3), run(elided, 3), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_resumed_equals_uninterrupted(recipe: Recipe) -> None:
    whole = elision.elide(network(), recipe, engine="torch")
    run(whole, 5)
    part = elision.elide(network(), recipe, engine="torch")
    run(part, 2)
    resumed = elision.elide(network(), recipe, engine="torch")
    resumed.load_state_dict(part.state_dict())
    run(resumed, 3, first=2)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_compiled_in_one_graph(recipe: Recipe) -> None:
    eager = elision.elide(network(), recipe, engine="torch")
    traced = copy.deepcopy(eager)
    torch._dynamo.reset()
    expected = run(eager, 3)
    compiled = torch.compile(traced, fullgraph=True, backend="aot_eager")
    found = run(compiled, 3)  # pyright: ignore[reportArgumentType]
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)
    for key, value in eager.state_dict().items():
        torch.testing.assert_close(value, traced.state_dict()[key])


def test_restore_gives_the_plain_model_back() -> None:
    plain = network()
    model = elision.restore(elision.elide(network(), ReSprop(0.5)))
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(run(model, 2), run(plain, 2), strict=True)
    )


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


def test_traces_come_back_and_damage_is_noticed(tmp_path: Path) -> None:
    model = elision.elide(network(), Swat(0.5), engine="torch")
    with elision.record(model, samples=2, layers=("2", "4")) as trace:
        run(model, 2)
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    for a, b in zip(trace, elision.Trace.load(path), strict=True):
        assert (a.kind, a.geometry, a.name, a.step) == (
            b.kind,
            b.geometry,
            b.name,
            b.step,
        )
        assert torch.equal(a.first, b.first)
        assert torch.equal(a.second, b.second)
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"",
        whole[:-1] + bytes([whole[-1] ^ 255]),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"trace\.safetensors"):
            elision.Trace.load(path)
