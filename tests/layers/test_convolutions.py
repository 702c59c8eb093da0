"""Convolutions of every rank, plain and transposed, as layers of the table."""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

import elision
from elision import Product, Recipe
from elision.layers import Table
from elision.layers.recipe import selects
from elision.operands import TopK, TopKPerExample

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

PLAIN: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: tuple[Any, ...] = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class Case(NamedTuple):
    """A layer and the shape of an input."""

    layer: Any
    shape: tuple[int, ...]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rank, is_transposed = draw(st.integers(1, 3)), draw(st.booleans())
    axis = range(rank)
    groups = draw(st.integers(1, 2))
    inputs, outputs = (groups * draw(st.integers(1, 3)) for _ in range(2))
    kernel, stride, dilation = (
        tuple(draw(st.integers(1, most)) for _ in axis) for most in (3, 3, 2)
    )
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    how: dict[str, Any] = {
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if is_transposed:
        how["padding"] = tuple(draw(st.integers(0, (r - 1) // 2)) for r in reach)
        how["output_padding"] = tuple(
            draw(st.integers(0, max(s, d) - 1))
            for s, d in zip(stride, dilation, strict=True)
        )
        sizes = [draw(st.integers(1, 3)) for _ in axis]
        kind = TRANSPOSED[rank - 1]
    else:
        how["padding_mode"] = draw(st.sampled_from(["zeros", "circular", "replicate"]))
        how["padding"] = tuple(draw(st.integers(0, 1)) for _ in axis)
        if set(stride) == {1}:
            how["padding"] = draw(st.sampled_from(["same", "valid", how["padding"]]))
        sizes = [r + draw(st.integers(1, 3)) for r in reach]
        kind = PLAIN[rank - 1]
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    torch.manual_seed(draw(st.integers(0, 99)))
    return Case(kind(inputs, outputs, kernel, **how), (*batch, inputs, *sizes))


def pass_of(layer: nn.Module, shape: tuple[int, ...]) -> list[Tensor]:
    """Output and gradients of input and parameters."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(layer.parameters()).dtype
    x = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
    layer.zero_grad()
    y = layer(x)
    y.backward(torch.randn(y.shape, generator=generator).to(dtype))
    grads = [p.grad for p in (x, *layer.parameters())]
    return [y.detach(), *(g.clone() for g in grads if g is not None)]


def equal(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def goes_beyond(layer: Any) -> bool:
    """Whether an output padding is no less than the stride."""
    pads = getattr(layer, "output_padding", ())
    return any(e >= s for e, s in zip(pads, layer.stride, strict=False))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_what_keeps_all_is_the_plain_layer_s_to_the_last_bit(case: Case) -> None:
    layer, shape = case
    expected = pass_of(layer, shape)
    keep = {p: dict.fromkeys(p.operands, TopK(0.0)) for p in Product}
    for recipe in (elision.methods.Dense(), Recipe("keep", Table(keep))):
        elided = elision.elide(copy.deepcopy(layer), recipe, engine="torch")
        assert type(elided).__name__ == f"Elided{type(layer).__name__}"
        assert elided.state_dict().keys() == layer.state_dict().keys()
        found = pass_of(elided, shape)
        # Cropped outputs, and images padded on one side first, have sums in any order.
        same = layer.padding != "same"
        if same and not (recipe.changes and goes_beyond(layer)):
            assert equal(found, expected)
        torch.testing.assert_close(found, expected)
        with elision.record(elided) as recorder:
            pass_of(elided, shape)
        assert [p.kind for p in recorder] == list(Product)
        restored = elision.restore(elided)
        assert type(restored) is type(layer)
        if same:
            assert equal(pass_of(restored, shape), expected)


def functional(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """The layer's function without its bias, on another weight."""
    own = copy.deepcopy(layer)
    own.bias = None
    return torch.func.functional_call(own, {"weight": weight}, (x,))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_changed_operands_against_autograd_in_float64(case: Case) -> None:
    layer, shape = case
    layer = layer.double()
    weight_f, weight_b, input_f, input_b = (TopK(s) for s in (0.3, 0.6, 0.2, 0.5))
    grad_x, grad_w = TopKPerExample(0.7), TopKPerExample(0.4)
    recipe = Recipe(
        "changed",
        Table(
            {
                Product.FORWARD: {"weight": weight_f, "input": input_f},
                Product.INPUT_GRAD: {"weight": weight_b, "grad_output": grad_x},
                Product.WEIGHT_GRAD: {"input": input_b, "grad_output": grad_w},
            }
        ),
    )
    elided = elision.elide(copy.deepcopy(layer), recipe, engine="torch")
    # Padding of another mode, and cropping, stand outside of the products.
    if layer.__dict__.get("padding_mode") != "zeros" or goes_beyond(layer):
        return
    if isinstance(layer.padding, str):
        return
    generator = torch.Generator().manual_seed(1)
    batched = len(shape) == layer.weight.dim()
    x = torch.randn(shape if batched else (1, *shape), generator=generator).double()
    w = layer.weight.detach()

    def read(transform: Any, value: Tensor) -> Tensor:
        return transform(value, [], True).requires_grad_()

    y = functional(layer, read(input_f, x), read(weight_f, w)).detach()
    if layer.bias is not None:
        y = y + layer.bias.detach().view(-1, *[1] * (x.dim() - 2))
    g = torch.randn(y.shape, generator=generator).double()
    xs, ws = read(input_b, x), read(weight_b, w)
    (dx,) = torch.autograd.grad(functional(layer, xs, ws), xs, read(grad_x, g))
    (dw,) = torch.autograd.grad(functional(layer, xs, ws), ws, read(grad_w, g))
    given = x.clone().requires_grad_()
    found = elided(given)
    found.backward(g)
    torch.testing.assert_close(found.detach(), y)
    torch.testing.assert_close(given.grad, dx)
    torch.testing.assert_close(elided.weight.grad, dw)
    if layer.bias is not None:
        sums = g.sum([0, *range(2, g.dim())])
        torch.testing.assert_close(elided.bias.grad, sums)


# --- what a call asks for -------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe", [elision.methods.Dense(), elision.methods.Swat(0.5, dense=())]
)
@pytest.mark.parametrize("size", [(9,), (2, 6, 9), [10]], ids=str)
def test_a_transposed_layer_is_told_the_size_of_its_output(
    recipe: Recipe, size: Any
) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose1d(4, 6, 3, stride=2)
    elided = elision.elide(copy.deepcopy(layer), recipe, engine="torch")
    x = torch.randn(2, 4, 4)
    y = elided(x, output_size=size)
    assert y.shape == layer(x, output_size=size).shape
    if not recipe.changes:
        assert torch.equal(y, layer(x, output_size=size))
    with pytest.raises(ValueError, match="requested an output size of"):
        elided(x, output_size=(12,))


def test_an_output_padding_beyond_stride_and_dilation_is_refused() -> None:
    layer = nn.ConvTranspose1d(2, 2, 3, output_padding=1)
    elided = elision.elide(nn.Sequential(layer), elision.methods.Swat(0.5, dense=()))
    with pytest.raises(
        ValueError, match=r"layer 0: output padding \(1,\) must be less"
    ):
        elided(torch.ones(1, 2, 4))


def test_a_graph_that_fx_traces_has_the_layers_as_nodes() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ConvTranspose1d(4, 2, 3))
    elision.elide(model, elision.methods.Static(0.5, dense=()))
    graph = fx.symbolic_trace(model)
    assert [n.target for n in graph.graph.nodes if n.op == "call_module"] == ["0", "1"]
    x = torch.randn(2, 2, 7)
    assert torch.equal(graph(x), model(x))


def test_selectors_name_convolutions_of_every_kind() -> None:
    layers = {
        "line": nn.Conv1d(4, 4, 3, groups=4),
        "block": nn.Conv3d(2, 4, 3),
        "up": nn.ConvTranspose2d(4, 8, 2, groups=4),
        "rows": nn.Linear(2, 2),
    }
    chosen = {
        pattern: [n for n, m in layers.items() if selects(pattern, n, m, list(layers))]
        for pattern in (":conv", ":depthwise", ":linear", ":first", ":last")
    }
    assert chosen == {
        ":conv": ["line", "block", "up"],
        ":depthwise": ["line", "up"],
        ":linear": ["rows"],
        ":first": ["line"],
        ":last": ["rows"],
    }
