"""Every operand recipe in every situation that training puts a model in."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from operand_recipes import (
    EXAMPLEWISE,
    RECIPES,
    assert_close,
    backward,
    batch,
    gradients,
    network,
    train,
)
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import elision
from elision.layers import elided_layers, watch
from elision.products import LayerProduct

Tensors = dict[str, Tensor]


def elided(recipe: str) -> nn.Module:
    return elision.elide(network(), RECIPES[recipe], engine="torch")


def assert_same(found: Tensors, expected: Tensors) -> None:
    """Equal to the last bit."""
    assert found.keys() == expected.keys()
    different = [k for k in expected if not torch.equal(found[k], expected[k])]
    assert not different


def steps(model: nn.Module, first: int = 0, count: int = 2) -> Tensors:
    """Gradients after some passes whose gradients are not added up, and the state."""
    for step in range(first, first + count):
        model.zero_grad()
        backward(model, *batch(step))
    return gradients(model) | dict(model.named_buffers())


def resumed(recipe: str) -> None:
    """A state dict in a file and a fresh model go on to the last bit."""
    whole = elided(recipe)
    train(whole, range(3))
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    other = elided(recipe)
    other.load_state_dict(torch.load(file, weights_only=True))
    train(whole, range(3, 6))
    train(other, range(3, 6))
    assert_same(other.state_dict(), whole.state_dict())


def pickled(recipe: str) -> None:
    """So does the whole model, pickled."""
    model = elided(recipe)
    train(model, range(2))
    other = pickle.loads(pickle.dumps(model))
    model.zero_grad()
    other.zero_grad()
    assert_same(steps(other, 2), steps(model, 2))


def deepcopied(recipe: str) -> None:
    """A copy computes the same and leaves the original's state alone."""
    model = elided(recipe)
    train(model, range(2))
    before = copy.deepcopy(model.state_dict())
    other = copy.deepcopy(model)
    found = steps(other, 2)
    assert_same(model.state_dict(), before)
    assert_same(found, steps(model, 2))


def restored(recipe: str) -> None:
    """The plain model is back, without a trace of the recipe."""
    model = elided(recipe)
    backward(model, *batch(0))
    model.zero_grad()
    assert elision.restore(model) is model
    plain = network()
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert not [a for m in model.modules() for a in vars(m) if "elision" in a]
    assert_same(model.state_dict(), plain.state_dict())
    assert_same(steps(model), steps(plain))


def compiled(recipe: str) -> None:
    """One graph, the same gradients, the same state; the last batch is smaller."""
    torch._dynamo.reset()
    eager, traced = elided(recipe), elided(recipe)
    graph: nn.Module = torch.compile(traced, fullgraph=True, backend="aot_eager")  # pyright: ignore[reportAssignmentType]
    for step, images in enumerate((4, 4, 3)):
        for model, run in ((eager, eager), (traced, graph)):
            model.zero_grad()
            backward(run, *(part[:images] for part in batch(step)))
    assert_close(
        gradients(traced) | dict(traced.named_buffers()),
        gradients(eager) | dict(eager.named_buffers()),
    )


def accumulated(recipe: str) -> None:
    """Gradients of two passes add up; each pass is a step to the recipe's state."""
    together, apart = elided(recipe), elided(recipe)
    first, second = steps(apart, 0, 1), steps(apart, 1, 1)
    for step in range(2):
        backward(together, *batch(step))
    assert_same(
        gradients(together),
        {n: first[n] + second[n] for n, _ in apart.named_parameters()},
    )
    assert_same(dict(together.named_buffers()), dict(apart.named_buffers()))
    if recipe in EXAMPLEWISE:
        whole = elided(recipe)
        backward(whole, *(torch.cat(t) for t in zip(batch(0), batch(1), strict=True)))
        assert_close(gradients(whole), gradients(together))


def in_channels_last(recipe: str) -> None:
    """The same numbers in the other memory format, which every layer keeps."""
    last = torch.channels_last
    plain, model = elided(recipe), elided(recipe)
    model.to(memory_format=last)  # pyright: ignore[reportCallIssue]
    planes: list[Any] = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, y: planes.append(y))
    for step in range(2):
        found, expected = (
            inputs_too(model, step, last),
            inputs_too(plain, step, torch.contiguous_format),
        )
        assert_close(found, expected)
    assert len(planes) == 8
    assert all(y.is_contiguous(memory_format=last) for y in planes)
    assert found["input"].is_contiguous(memory_format=last)  # pyright: ignore[reportPossiblyUnboundVariable]


def inputs_too(model: nn.Module, step: int, layout: torch.memory_format) -> Tensors:
    """Output, all gradients down to the input's, and the state after one pass."""
    x, weight = batch(step)
    x = x.contiguous(memory_format=layout).requires_grad_()
    model.zero_grad()
    y = backward(model, x, weight)
    assert x.grad is not None
    pass_ = {"output": y, "input": x.grad}
    return pass_ | gradients(model) | dict(model.named_buffers())


def under_autocast(recipe: str) -> None:
    """Operands and products are those of the model in the narrow format itself."""
    model, narrow = elided(recipe), elided(recipe).bfloat16()
    for step in range(2):
        x, weight = batch(step)
        model.zero_grad()
        narrow.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            found = backward(model, x, weight)
        expected = backward(narrow, x.bfloat16(), weight)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert_same(gradients(model), {n: g.float() for n, g in gradients(narrow).items()})


def in_evaluation(recipe: str) -> None:
    """Evaluating moves no state, and a resumed training step does not notice it."""
    model, other = elided(recipe), elided(recipe)
    steps(model)
    steps(other)
    other.eval()
    with torch.no_grad():
        y = other(batch(9)[0])
    assert torch.isfinite(y).all()
    assert_same(other.state_dict(), model.state_dict())
    assert_same(steps(other.train(), 2), steps(model, 2))


def saving(recipe: str) -> None:
    """What is kept for backward is what the gradient products read, nothing else.

    But by a transform with a gradient of its own, which its backward pass computes.
    """
    if any(transform.own_gradient for _, _, transform in RECIPES[recipe].table):
        return
    model = elided(recipe)
    seen: list[LayerProduct] = []
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with watch(model, lambda observation: seen.append(observation.product)):
        for name, layer in elided_layers(model):
            plane = (
                (layer.in_channels, 10, 10) if isinstance(layer, nn.Conv2d) else (24,)
            )
            x = torch.randn(4, *plane, requires_grad=True)
            kept.clear()
            with saved_tensors_hooks(keep, lambda x: x):
                y = layer(x)
            y.sum().backward()
            _, input_grad, weight_grad = seen[-3:]
            assert len(kept) == 2
            assert torch.equal(kept[0], weight_grad.operands["input"])
            assert torch.equal(kept[1], input_grad.operands["weight"])
            if recipe == "swat" and name in ("2", "6", "8"):
                assert weight_grad.densities["input"] == pytest.approx(0.3, abs=0.02)


SITUATIONS: dict[str, Callable[[str], None]] = {
    "resumed": resumed,
    "pickled": pickled,
    "deepcopied": deepcopied,
    "restored": restored,
    "compiled": compiled,
    "accumulated": accumulated,
    "channels-last": in_channels_last,
    "autocast": under_autocast,
    "evaluated": in_evaluation,
    "saving": saving,
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_in_situation(recipe: str, situation: str) -> None:
    SITUATIONS[situation](recipe)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r != "dense"])
def test_the_table_is_not_idle(recipe: str) -> None:
    found, plain = steps(elided(recipe)), steps(network())
    assert any(not torch.equal(found[name], plain[name]) for name in plain)


def test_keeping_every_operand_is_plain_autograd_bit_for_bit() -> None:
    assert_same(steps(elided("dense")), steps(network()))


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_a_program_is_traced_with_elided_layers_as_nodes(engine: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)
    )
    elision.elide(model, elision.methods.Swat(sparsity=0.5, dense=()), engine=engine)
    graph = torch.fx.symbolic_trace(model)
    graph.graph.lint()
    names = [str(n.target) for n in graph.graph.nodes if n.op == "call_module"]
    assert names == ["0", "1", "2", "3", "4"]
    x = torch.randn(2, 3, 5, 5)
    assert torch.allclose(graph(x), model(x), atol=1e-5)
