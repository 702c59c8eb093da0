"""Forms of elided layers: one function, the plain layer's own path, an honest word."""

import copy
import gc
import logging
import re
import weakref
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import elision
from elision.engines import auto as choice
from elision.engines.native import library
from elision.layers import forms
from elision.layers.modules.base import _Products
from elision.methods import Dense, ReSprop, RigL, Static, Swat, TopKAST


@pytest.fixture(autouse=True)
def own_decisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELISION_CACHE", str(tmp_path))
    monkeypatch.setattr(forms, "_USED", {})


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, groups=4, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 9, 20),
        nn.ReLU(),
        nn.Linear(20, 4),
    )


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> list:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images(seed)), torch.arange(6) % 4)
    loss.backward()
    optimizer.step()
    return [loss.detach(), *gradients(model)]


@pytest.fixture
def through_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of layers that went product by product."""
    calls: list[int] = []
    forward = _Products.forward

    def spy(*args):
        calls.append(1)
        return forward(*args)

    monkeypatch.setattr(_Products, "forward", staticmethod(spy))
    return calls


@pytest.mark.parametrize(
    "recipe", [Static(0.5), RigL(0.5, every=2, until=9), Static(0.5, pattern="kernel")]
)
def test_a_masked_layer_too_small_for_kernels_is_the_plain_layers_own_path(
    recipe: elision.Recipe, through_products: list[int]
) -> None:
    seen = {}
    for engine in ("torch", "auto"):
        model = elision.elide(network(), recipe, engine=engine)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        elision.topology.attach(model, optimizer)
        through_products.clear()
        seen[engine] = [step(model, optimizer, seed) for seed in range(5)]
        calls = len(through_products)
    assert calls == 0
    for found, expected in zip(seen["auto"], seen["torch"], strict=True):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ["torch", "auto"])
@pytest.mark.parametrize("recipe", [Dense(), Swat(0.0)])
def test_a_layer_that_keeps_all_is_the_plain_layer(
    engine: str, recipe: elision.Recipe, through_products: list[int]
) -> None:
    plain, elided = network(), elision.elide(network(), recipe, engine=engine)
    x = images()
    for model in (plain, elided):
        model(x).square().sum().backward()
    assert not through_products or recipe != Dense()
    for p, q in zip(gradients(plain), gradients(elided), strict=True):
        assert torch.equal(p, q)


def test_a_layer_that_keeps_all_has_second_derivatives() -> None:
    def penalty(model: nn.Module) -> torch.Tensor:
        x = images().requires_grad_()
        (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        g.square().sum().backward()
        return gradients(model)[0]

    assert torch.equal(penalty(network()), penalty(elision.elide(network(), Dense())))


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (Static(0.5), ("direct", "products", "blocked")),
        (RigL(0.5), ("direct", "products", "blocked")),
        (TopKAST(0.5, backward_sparsity=0.3), ("products",)),  # learns beyond its mask
        (Swat(0.5, dense=()), ("products", "blocked")),
        (ReSprop(0.5, dense=()), ("products",)),
    ],
)
def test_forms_of_methods(recipe: elision.Recipe, names: tuple[str, ...]) -> None:
    model = elision.elide(network(), recipe, engine="auto")
    chosen = model[0]._elision_forms
    assert isinstance(chosen, forms.Forms)
    assert chosen.names == names


@pytest.mark.skipif(library.unavailable() is not None, reason="no kernels")
@pytest.mark.parametrize(("dense", "level"), [(1.0, "WARNING"), (4.0, "INFO")])
def test_one_line_says_what_the_layers_save(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    dense: float,
    level: str,
) -> None:
    monkeypatch.setattr(forms, "LEAST_MACS", 0)
    monkeypatch.setattr(choice, "LEAST_MACS", 0)
    timed = {"products": 3.0, "blocked": 2.0, "dense": dense}
    monkeypatch.setattr(forms, "fastest", lambda names, _: {n: timed[n] for n in names})
    caplog.set_level(logging.INFO, "elision")
    model = elision.elide(network(), Swat(0.5, dense=(":last",)), engine="auto")
    for seed in range(4):
        model(images(seed)).sum().backward()
    (record,) = caplog.records
    assert record.levelname == level
    text = record.getMessage()
    assert "3 layers timed (3 blocked)" in text or "1 products" in text
    assert ("slower than dense: 0, 2 and 1 more" in text or "slower" in text) == (
        level == "WARNING"
    )
    ratio = re.search(r"\(([\d.]+)x\)", text)
    assert ratio is not None
    assert (float(ratio[1]) < 1) == (level == "WARNING")


def test_a_copy_makes_choices_of_its_own() -> None:
    model = elision.elide(network(), Static(0.5), engine="auto")
    twin = copy.deepcopy(model)
    assert twin[0]._elision_forms is not model[0]._elision_forms
    assert torch.equal(twin(images()), model(images()))


def test_a_plan_is_forgotten_with_its_layer() -> None:
    model = elision.elide(network(), Static(0.5), engine="auto")
    model(images()).sum().backward()
    plan = weakref.ref(model[0]._elision_plan)
    del model
    gc.collect()
    assert plan() is None
