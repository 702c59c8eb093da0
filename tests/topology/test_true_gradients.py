"""Masks read true gradients, and count the steps that an optimiser really takes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from elision import methods

Optimizer = Callable[[Any], torch.optim.Optimizer]

RECIPES = {
    "dst": lambda: methods.DST(alpha=1e-2),
    "rigl": lambda: methods.RigL(0.8, every=3, until=40),
    "gathered": lambda: methods.RigL(0.8, every=3, until=40, growth="gathered"),
    "top-kast": lambda: methods.TopKAST(0.8, backward_sparsity=0.5),
}
FUSED: dict[str, Optimizer] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5)
    )


def start(recipe: str, optimizer: Optimizer) -> tuple[nn.Module, Any, Any]:
    model = elision.elide(network(), RECIPES[recipe](), engine="torch")
    made = optimizer(model.parameters())
    return model, made, elision.topology.attach(model, made)


def loss(model: nn.Module, number: int) -> Tensor:
    x = torch.randn(16, 20, generator=torch.Generator().manual_seed(number))
    return F.cross_entropy(model(x), x[:, :5].argmax(1))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {n: v.clone() for n, v in model.state_dict().items()}


@pytest.mark.parametrize("optimizer", FUSED)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_scaled_run_is_the_run_without_a_scale(recipe: str, optimizer: str) -> None:
    found = []
    for scale in (1.0, 2.0**12):  # a power of two scales without rounding
        model, made, _ = start(recipe, FUSED[optimizer])
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        for number in range(10):
            made.zero_grad()
            scaler.scale(loss(model, number)).backward()
            scaler.step(made)
            scaler.update()
        found.append(state(model))
    for name, expected in found[0].items():
        assert torch.allclose(found[1][name], expected, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("optimizer", FUSED)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_skipped_step_counts_nowhere(
    recipe: str, optimizer: str, value: float
) -> None:
    model, made, topology = start(recipe, FUSED[optimizer])
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for number in range(4):
        made.zero_grad()
        scaler.scale(loss(model, number)).backward()
        before, step = state(model), topology.step
        if number == 2:
            parameter = next(model.parameters())
            assert parameter.grad is not None
            parameter.grad[0, 0] = value
        scaler.step(made)
        scaler.update()
        assert topology.step == step + (number != 2)
        if number == 2:
            after = state(model)
            assert all(torch.equal(after[n], v) for n, v in before.items())
    assert all(torch.isfinite(v).all() for v in state(model).values())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("cleared", [True, False])
def test_a_step_without_backward_moves_nothing(recipe: str, cleared: bool) -> None:
    model, made, topology = start(recipe, lambda p: torch.optim.SGD(p, lr=0.05))
    if cleared:  # after a real step, whose gradients are gone
        loss(model, 0).backward()
        made.step()
        made.zero_grad()
    before, step, digest = state(model), topology.step, topology.digest()
    for _ in range(7):
        made.step()
    assert (topology.step, topology.digest()) == (step, digest)
    assert all(torch.equal(state(model)[n], v) for n, v in before.items())


MASKED = {
    "static": lambda: methods.Static(0.8),
    "set": lambda: methods.SET(0.8, every=50, until=1000),
    "rigl": lambda: methods.RigL(0.8, every=50, until=1000),
}


def masked(recipe: str, engine: str = "torch") -> tuple[nn.Module, Any]:
    model = elision.elide(network(), MASKED[recipe](), engine=engine)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return model, elision.topology.attach(model, optimizer)


@pytest.mark.parametrize("recipe", MASKED)
def test_clipping_sees_the_same_norm_under_every_engine(recipe: str) -> None:
    norms = []
    for engine in ("torch", "auto", "native"):
        model, _ = masked(recipe, engine)
        for number in range(2):  # two backward passes into one gradient
            loss(model, number).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1e9)))
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)


@pytest.mark.parametrize("recipe", MASKED)
def test_gradients_are_masked_from_the_end_of_the_backward_pass(recipe: str) -> None:
    model, topology = masked(recipe)
    for number in range(2):
        loss(model, number).backward()
        for weight in topology.weights:
            assert not weight.weight.grad[~weight.mask].any()
            assert weight.weight.grad[weight.mask].any()


@pytest.mark.parametrize("recipe", MASKED)
def test_a_closure_sees_masked_gradients(recipe: str) -> None:
    def descend(by_hand: bool) -> list[float]:
        model = elision.elide(network(), MASKED[recipe](), engine="torch")
        optimizer = torch.optim.LBFGS(
            model.parameters(), max_iter=6, line_search_fn="strong_wolfe"
        )
        topology = elision.topology.attach(model, optimizer)

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(model, 0)
            value.backward()
            if by_hand:
                for weight in topology.weights:
                    weight.weight.grad.mul_(weight.mask)
            return value

        return [optimizer.step(closure).item() for _ in range(4)]

    assert descend(False) == pytest.approx(descend(True), rel=1e-5)


def test_a_step_that_grows_by_gradient_sees_all_of_it() -> None:
    recipe = methods.RigL(0.8, every=2, until=40)
    model = elision.elide(network(), recipe, engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    topology = elision.topology.attach(model, optimizer)
    seen = []
    for number in range(4):
        optimizer.zero_grad()
        loss(model, number).backward()
        seen.append(any(bool(w.weight.grad[~w.mask].any()) for w in topology.weights))
        optimizer.step()
    assert seen == [False, True, False, True]
    assert topology.history


@pytest.mark.parametrize("recipe", [*RECIPES, "static", "set"])
def test_a_model_with_a_frozen_layer_trains(recipe: str) -> None:
    model = network()
    model[2].weight.requires_grad_(False)
    elision.elide(model, (RECIPES | MASKED)[recipe](), engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    topology = elision.topology.attach(model, optimizer)
    first = model[0].weight.detach().clone()
    for number in range(3):
        optimizer.zero_grad()
        loss(model, number).backward()
        optimizer.step()
    assert topology.step == 4
    assert not torch.equal(model[0].weight, first)


SHAPED = {
    "dst": lambda: methods.DST(alpha=1e-2),
    "top-kast": lambda: methods.TopKAST(0.8, backward_sparsity=0.5, every=3),
    "n-m": lambda: methods.NM(2, 4, decay=0.1, dense=(":last",)),
    "gathered": lambda: methods.RigL(0.8, every=3, until=40, growth="gathered"),
    "rigl": lambda: methods.RigL(0.8, every=3, until=40),
    "snfs": lambda: methods.SNFS(0.8, every=50, variant="gradient"),
}


@pytest.mark.parametrize("recipe", SHAPED)
def test_every_evaluation_of_a_closure_sees_the_rules_gradient(recipe: str) -> None:
    seen: list[list[Tensor]] = []

    class Twice(torch.optim.SGD):
        """Evaluates the closure three times where it stands, then steps."""

        def step(self, closure: Any = None) -> Any:
            own = self.param_groups[0]["params"]
            for _ in range(3):
                value = torch.enable_grad()(closure)()
                grads = [p.grad for p in own]
                seen.append([g.clone() for g in grads if g is not None])
            super().step()
            return value

    model = elision.elide(network(), SHAPED[recipe](), engine="torch")
    optimizer = Twice(model.parameters(), lr=0.05)
    topology = elision.topology.attach(model, optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model, topology.step)
        value.backward()
        return value

    for number in range(4):
        optimizer.step(closure)
        first, *others = seen[-3:]
        for other in others:
            assert len(other) == len(first)
            assert all(map(torch.equal, first, other)), number
    assert topology.step == 5


@pytest.mark.parametrize("recipe", MASKED)
@pytest.mark.parametrize("engine", ["torch", "auto", "native"])
def test_gradients_add_up_masked_under_every_engine(engine: str, recipe: str) -> None:
    sums = []
    for at_once in (True, False):
        model, topology = masked(recipe, engine)
        if at_once:
            (loss(model, 0) + loss(model, 1) + loss(model, 2)).backward()
        else:
            for number in range(3):
                loss(model, number).backward()
        assert not any(w.weight.grad[~w.mask].any() for w in topology.weights)
        sums.append([w.weight.grad.clone() for w in topology.weights])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*sums, strict=True))


@pytest.mark.parametrize("engine", ["torch", "auto", "native"])
def test_clipping_in_a_training_is_that_of_every_engine(engine: str) -> None:
    weights = []
    for name in ("torch", engine):
        model = elision.elide(
            network(), methods.RigL(0.8, every=3, until=40), engine=name
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        elision.topology.attach(model, optimizer)
        for number in range(10):
            optimizer.zero_grad()
            loss(model, number).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*weights, atol=1e-4)
