"""MultiheadAttention's projections in the table: torch's results where nothing is left out."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import elision
from elision.layers import watch
from elision.methods import METHODS, Static, Swat
from elision.products import MatmulGeometry, Product

#: Options of the layer, and whether queries attend to something else.
FORMS: dict[str, tuple[dict[str, Any], bool]] = {
    "self": ({}, False),
    "self, batch first, no bias": ({"bias": False, "batch_first": True}, False),
    "self, with more keys": ({"add_bias_kv": True, "add_zero_attn": True}, False),
    "cross": ({}, True),
    "cross, other widths": ({"kdim": 12, "vdim": 4}, True),
    "cross, no bias": ({"bias": False}, True),
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def made(form: str) -> tuple[nn.MultiheadAttention, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    options, cross = FORMS[form]
    layer = nn.MultiheadAttention(8, 2, **options)
    query = torch.randn(5, 3, 8, requires_grad=True)
    if not cross:
        return layer, (query, query, query)
    widths = options.get("kdim", 8), options.get("vdim", 8)
    if widths == (8, 8):  # keys are values: one product for both
        memory = torch.randn(5, 3, 8, requires_grad=True)
        return layer, (query, memory, memory)
    key, value = (torch.randn(5, 3, w, requires_grad=True) for w in widths)
    return layer, (query, key, value)


def learned(layer: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    layer.zero_grad()
    for x in inputs:
        x.grad = None
    y, weights = layer(*inputs)
    (y.square().sum() + weights.square().sum()).backward()
    grads = [p.grad for p in (*layer.parameters(), *inputs)]
    return [y.detach(), weights.detach(), *grads]  # type: ignore[list-item]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_product_by_product_is_torchs_layer(form: str) -> None:
    layer, inputs = made(form)
    state, expected = list(layer.state_dict()), learned(layer, inputs)
    with watch(layer, lambda _: None):
        assert_same(learned(layer, inputs), expected)
    assert type(layer) is nn.MultiheadAttention
    assert [type(m).__name__ for m in layer.children()] == [
        "NonDynamicallyQuantizableLinear"
    ]
    assert list(layer.state_dict()) == state
    elision.restore(elision.elide(layer, Swat(0.5)))
    for a, b in zip(learned(layer, inputs), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_masks_are_torchs_layer_with_what_they_leave(form: str) -> None:
    layer, inputs = made(form)
    masked = elision.elide(copy.deepcopy(layer), Static(0.5, dense=()), engine="torch")
    for name, mask in masked.named_buffers():
        part, _, rest = name.partition(".")
        if rest.endswith("mask"):
            key = "out_proj.weight" if part == "out_proj" else f"{part}_weight"
            layer.get_parameter(key).data.mul_(mask)
            assert not mask.all()
    assert_same(learned(masked, inputs), learned(layer, inputs))


@pytest.mark.parametrize("form", ["self", "cross", "cross, other widths"])
@pytest.mark.parametrize("recipe", sorted(METHODS))
def test_every_recipe_trains_it(recipe: str, form: str) -> None:
    layer, inputs = made(form)
    whole = nn.ModuleDict({"first": nn.Linear(8, 8), "attention": layer})
    elision.elide(whole, recipe)
    optimizer = torch.optim.SGD(whole.parameters(), 0.01, momentum=0.9)
    elision.topology.attach(whole, optimizer, steps=8)
    for _ in range(3):
        optimizer.zero_grad()
        query, *rest = (x.detach() for x in inputs)
        query = whole["first"](query)
        first = query if form == "self" else None
        y, _ = layer(query, *(first if first is not None else x for x in rest))
        y.square().sum().backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in whole.parameters())


def test_a_transform_sees_the_whole_weight_once() -> None:
    layer, inputs = made("cross")
    elision.elide(layer, Swat(0.75, dense=()), engine="torch")
    with elision.record(layer) as trace:
        learned(layer, inputs)
    read = [p for p in trace if p.name == "in_proj" and p.kind is Product.FORWARD]
    assert [p.geometry for p in read] == [
        MatmulGeometry(15, 8, 8),
        MatmulGeometry(15, 8, 16),
    ]
    kept = sum(int((p.second != 0).sum()) for p in read)
    assert kept == 0.25 * 3 * 8 * 8
    rows = [int((p.second != 0).sum()) for p in read]
    assert rows[0] != 0.25 * 64  # the largest of all three weights, not of each


def test_metered_is_what_torch_counts() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model, x = (
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        torch.randn(2, 5, 16),
    )
    counter = torch.utils.flop_counter.FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:  # torch has no formula for the other
        model(x).sum().backward()
    with elision.metered(model) as meter:
        model(x).sum().backward()
    assert 2 * meter.total().dense_macs == counter.get_total_flops()
    found = elision.explain(model, x)
    assert "layers.1.self_attn.in_proj" in found.reached
    assert {part.what for part in found.unreached} == {"qk", "pv"}


def test_evaluation_of_what_is_not_changed_is_torchs_fast_path() -> None:
    layer, (query, *_) = made("self, batch first, no bias")
    layer.eval()
    with torch.no_grad():
        expected = layer(query, query, query)
        elision.elide(layer, "dense")
        assert all(map(torch.equal, layer(query, query, query), expected))


def test_a_replaced_softmax_is_computed_in_an_elided_layer() -> None:
    layer, inputs = made("self")
    elision.elide(
        layer, Static(0.5), functions={"softmax": "taylor-softmax"}, engine="torch"
    )
    usual = elision.elide(copy.deepcopy(layer), Static(0.5), engine="torch")
    found = layer(*inputs)
    assert elision.layers.replaced_functions(layer)[0].calls
    assert not torch.allclose(found[1], usual(*inputs)[1])


def test_a_subclass_with_a_forward_of_its_own_stays_dense_and_is_named() -> None:
    class Same(nn.MultiheadAttention):
        pass

    class Own(Same):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)[0]

    model = nn.ModuleList([Own(8, 2), Same(8, 2), nn.Linear(8, 8)])
    with pytest.warns(
        elision.layers.NoEffectWarning, match="forward of their own.*: 0"
    ):
        elision.elide(model, "swat")
    found = elision.explain(model)
    whys = {part.name: part.why for part in found.unreached}
    assert "forward of its own" in whys["0"]
    assert "1.in_proj" in found.reached
