"""Activation checkpointing: one step stays one step, whatever is computed again."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from operand_recipes import RECIPES
from sparse_models import MOVING, batch, sgd, small_net
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

import elision
from elision.common.restoring import restored
from elision.layers import states_of, watch
from elision.operands import LearnedThreshold, Reuse, TopK
from elision.products import Product

Form = Callable[[nn.Module, Tensor], Tensor]


def plain(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)


def selective(policy: CheckpointPolicy, net: nn.Module, x: Tensor) -> Tensor:
    contexts = partial(
        create_selective_checkpoint_contexts, lambda ctx, op, *a, **k: policy
    )
    return checkpoint(net, x, use_reentrant=False, context_fn=contexts)  # pyright: ignore


def nested(outer: bool, inner: bool, net: nn.Module, x: Tensor) -> Tensor:
    def both(x: Tensor) -> Tensor:
        for layer in net:  # pyright: ignore[reportGeneralTypeIssues]
            x = checkpoint(layer, x, use_reentrant=inner)  # pyright: ignore
        return x

    return checkpoint(both, x, use_reentrant=outer)  # pyright: ignore


def in_parts(reentrant: bool, net: nn.Module, x: Tensor) -> Tensor:
    return checkpoint_sequential(net, 2, x, use_reentrant=reentrant)  # pyright: ignore


FORMS: dict[str, Form] = {
    "reentrant": partial(checkpoint, use_reentrant=True),  # pyright: ignore
    "non-reentrant": partial(checkpoint, use_reentrant=False),  # pyright: ignore
    "without-random-state": partial(
        checkpoint, use_reentrant=True, preserve_rng_state=False
    ),  # pyright: ignore
    "nested": partial(nested, False, False),
    "nested-mixed": partial(nested, False, True),
    "parts-reentrant": partial(in_parts, True),
    "parts": partial(in_parts, False),
    "selective-save": partial(selective, CheckpointPolicy.MUST_SAVE),
    "selective-recompute": partial(selective, CheckpointPolicy.MUST_RECOMPUTE),
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 5)
    )


def thresholds(refresh: int) -> elision.Recipe:
    weight, input = TopK(0.7, refresh=refresh), TopK(0.6, refresh=refresh)
    cells = {
        Product.FORWARD: {"weight": weight, "input": input},
        Product.INPUT_GRAD: {"weight": weight},
        Product.WEIGHT_GRAD: {"input": input},
    }
    return elision.Recipe("thresholds", elision.Table(cells))


def reused_input() -> elision.Recipe:
    cells = {Product.FORWARD: {"input": Reuse(0.5, initial_threshold=0.1)}}
    return elision.Recipe("reused", elision.Table(cells))


def learned() -> elision.Recipe:
    cells = {Product.FORWARD: {"weight": LearnedThreshold(0.9)}}
    return elision.Recipe("learned", elision.Table(cells))


def steps(recipe: elision.Recipe, form: Form, engine: str = "torch") -> dict[str, Any]:
    """Parameters, state and what observers saw after some steps."""
    model = elision.elide(net(), recipe, engine=engine)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for i in range(7):
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        form(model, x.requires_grad_()).square().mean().backward()
        optimizer.step()
    return dict(model.state_dict())


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [k for k in expected if not torch.equal(found[k], expected[k])] == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "recipe", ["swat-refreshed", "resprop", "chained", "accumulated"]
)
def test_a_checkpointed_step_is_the_step_without(recipe: str, form: str) -> None:
    assert_same(steps(RECIPES[recipe], FORMS[form]), steps(RECIPES[recipe], plain))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "recipe", [thresholds(3), reused_input(), learned()], ids=lambda r: r.name
)
def test_state_of_the_forward_pass_is_read_again_and_not_moved(
    recipe: elision.Recipe, form: str
) -> None:
    assert_same(steps(recipe, FORMS[form]), steps(recipe, plain))


@pytest.mark.parametrize("form", ["reentrant", "non-reentrant"])
def test_a_checkpointed_step_of_the_native_engine(form: str) -> None:
    found = steps(thresholds(3), FORMS[form], engine="native")
    expected = steps(thresholds(3), plain, engine="native")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("form", ["reentrant", "non-reentrant", "nested", "parts"])
def test_observers_see_each_product_once(form: str) -> None:
    def seen(form: Form) -> list[tuple[str, str]]:
        model = elision.elide(net(), RECIPES["swat-refreshed"], engine="torch")
        found = []

        def observer(o: Any) -> None:
            found.append((o.product.name, o.product.kind.value))

        with watch(model, observer):
            form(model, torch.ones(8, 12, requires_grad=True)).sum().backward()
        return sorted(found)

    assert seen(FORMS[form]) == seen(plain)


@pytest.mark.parametrize("form", ["reentrant", "non-reentrant"])
def test_the_meter_and_the_recorder_count_one_step(form: str) -> None:
    def seen(form: Form) -> tuple[Any, Any]:
        model = elision.elide(net(), RECIPES["swat-refreshed"], engine="torch")
        with elision.metered(model) as meter, elision.record(model) as trace:
            for _ in range(2):
                form(model, torch.ones(8, 12, requires_grad=True)).sum().backward()
        return meter.total().to_dict(), (trace.steps, len(trace))

    assert seen(FORMS[form]) == seen(plain)


def test_a_layer_called_twice_finds_the_state_of_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self, form: Form) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.form = nn.Linear(6, 6), form

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                x = torch.tanh(self.form(self.fc, x))
            return x

    def gradients(form: Form) -> list[Tensor]:
        model = elision.elide(Twice(form), thresholds(3), engine="torch")
        found = []
        for i in range(5):
            model.zero_grad()
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(i))
            model(x.requires_grad_()).square().sum().backward()
            assert model.fc.weight.grad is not None
            found.append(model.fc.weight.grad.clone())
            with torch.no_grad():
                model.fc.weight.mul_(1.1)
        return found

    for form in ("reentrant", "non-reentrant"):
        for found, expected in zip(
            gradients(FORMS[form]), gradients(plain), strict=True
        ):
            assert torch.equal(found, expected)


def test_a_forward_pass_inside_a_backward_pass_moves_nothing() -> None:
    model = elision.elide(net(), thresholds(2), engine="torch")
    x = torch.randn(4, 12)
    model(x)
    before = copy.deepcopy(model.state_dict())
    y = (x * 2).requires_grad_()
    z = y.clone()
    z.register_hook(lambda g: g + 0 * model(x).sum())
    z.sum().backward()
    assert_same(dict(model.state_dict()), dict(before))


def test_a_training_pass_without_gradients_is_a_step_and_evaluation_is_none() -> None:
    model = elision.elide(net(), thresholds(2), engine="torch")
    steps_of = partial(states_of, model[0], "weight_for_forward")  # pyright: ignore
    with torch.no_grad():
        model(torch.ones(4, 12))
        assert int(steps_of()["step"]) == 1
        model.eval()(torch.ones(4, 12))
        assert int(steps_of()["step"]) == 1
    with torch.inference_mode():
        model.train()(torch.ones(4, 12))
    assert int(steps_of()["step"]) == 1


def test_a_pass_in_inference_mode_before_the_first_step_leaves_no_state() -> None:
    model = elision.elide(net(), RECIPES["resprop"], engine="torch")
    before = dict(model.state_dict())
    with torch.inference_mode():
        model(torch.ones(4, 12))
    assert_same(dict(model.state_dict()), before)
    for _ in range(2):
        model(torch.ones(4, 12)).sum().backward()


@pytest.mark.parametrize("form", ["reentrant", "non-reentrant", "parts"])
def test_batches_in_flight_find_the_state_of_their_own_forward_pass(form: str) -> None:
    """As in a pipeline: several forward passes, then their backward passes."""

    def gradients(form: Form) -> dict[str, Tensor]:
        model = elision.elide(net(), thresholds(2), engine="torch")
        losses = []
        for i in range(3):
            x = torch.randn(8, 12, generator=torch.Generator().manual_seed(i))
            losses.append(form(model, x.requires_grad_()).square().mean())
        for loss in losses:
            loss.backward()
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return found | dict(model.state_dict())

    assert_same(gradients(FORMS[form]), gradients(plain))


def test_trial_passes_leave_no_reference_behind() -> None:
    model = elision.elide(net(), RECIPES["resprop"], engine="torch")
    before = dict(model.state_dict())
    with restored(model):
        for _ in range(2):
            model(torch.randn(8, 12)).sum().backward()
        assert any(v.numel() for n, v in model.state_dict().items() if "reference" in n)
    assert_same(dict(model.state_dict()), before)
    model(torch.randn(6, 12)).sum().backward()
    between = copy.deepcopy(model.state_dict())
    with restored(model):
        model(torch.randn(6, 12)).sum().backward()
    assert_same(dict(model.state_dict()), dict(between))


@pytest.mark.parametrize(
    ("engine", "form"),
    [("torch", "reentrant"), ("torch", "non-reentrant"), ("native", "reentrant")],
)
@pytest.mark.parametrize("method", MOVING)
def test_masks_move_in_a_checkpointed_step_as_without(
    method: str, form: str, engine: str
) -> None:
    def trained(form: Form) -> dict[str, Tensor]:
        model = elision.elide(small_net(), MOVING[method], engine=engine)
        optimizer = sgd(model)
        elision.topology.attach(model, optimizer)
        for step in range(5):
            images, labels = batch(step)
            optimizer.zero_grad()
            y = form(model, images.requires_grad_())
            nn.functional.cross_entropy(y, labels).backward()
            optimizer.step()
        # Torch's own running statistics are those of two passes.
        state = model.state_dict().items()
        return {n: v for n, v in state if not n.startswith("1.") and "_extra" not in n}

    found, expected = trained(FORMS[form]), trained(plain)
    if engine == "torch":
        assert_same(found, expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
