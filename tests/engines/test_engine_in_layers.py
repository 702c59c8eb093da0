"""An elided model computes the same whichever engine its layers use."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import elision
from elision.engines.native import library
from elision.layers import elided_layers
from elision.methods import MeProp, ReSprop, Swat

needs_native = pytest.mark.skipif(
    library.unavailable() is not None, reason=str(library.unavailable())
)


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 20, 3, 2, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(20, 20, 3, padding=1, groups=4),
        nn.Flatten(),
        nn.Linear(20 * 16, 30),
        nn.ReLU(),
        nn.Linear(30, 5),
    )


@needs_native
@pytest.mark.parametrize("engine", ["native", "auto"])
@pytest.mark.parametrize(
    "recipe", [Swat(sparsity=0.7), ReSprop(reuse=0.8), MeProp(keep=0.2)]
)
def test_steps_are_the_same(engine, recipe):
    x, target = torch.randn(9, 3, 8, 8), torch.randint(0, 5, (9,))
    losses, gradients = {}, {}
    for name in ("torch", engine):
        elided = elision.elide(model(), recipe, engine=name)
        optimizer = torch.optim.SGD(elided.parameters(), 0.05)
        losses[name] = []
        torch.manual_seed(1)
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.cross_entropy(elided(x), target)
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
            gradients.setdefault(name, [p.grad.clone() for p in elided.parameters()])
    assert losses[engine] == pytest.approx(losses["torch"], rel=1e-4)
    for found, expected in zip(gradients[engine], gradients["torch"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@needs_native
def test_engines_belong_to_layers_and_go_with_restore():
    elided = elision.elide(model(), Swat(sparsity=0.5), engine="native")
    twin = copy.deepcopy(elided)
    engines = [layer._elision_engine for _, layer in elided_layers(elided)]
    assert len({id(e) for e in engines}) == len(engines) == 5
    assert {e.name for e in engines} == {"native"}
    assert torch.allclose(twin(torch.ones(1, 3, 8, 8)), elided(torch.ones(1, 3, 8, 8)))
    plain = elision.restore(elided)
    assert not any(hasattr(m, "_elision_engine") for m in plain.modules())


def test_an_engine_that_cannot_be_had_changes_nothing(monkeypatch):
    untouched = model()
    with pytest.raises(ValueError, match="unknown engine 'cuda'"):
        elision.elide(untouched, Swat(), engine="cuda")
    monkeypatch.setattr(library, "unavailable", lambda: "no compiler")
    with pytest.raises(RuntimeError, match="no compiler"):
        elision.elide(untouched, Swat(), engine="native")
    assert list(elided_layers(untouched)) == []
