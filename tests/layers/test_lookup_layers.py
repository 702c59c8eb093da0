"""Embeddings and bilinear layers in the table: torch's results, any recipe, one product."""

import copy
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import elision
from elision.layers import Observation, Table, elidable_layers, watch
from elision.layers.recipe import names_in_order, selects
from elision.methods import METHODS, RigL, Static, Swat
from elision.operands import Accumulate, Cast, Mask, TopK
from elision.products import LookupGeometry, MatmulGeometry, Product, Trace

#: Masks here never move.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

#: Options of an embedding.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"padding_idx": 2},
    {"max_norm": 1.0},
    {"scale_grad_by_freq": True},
    {"sparse": True},
]


def seen_by_nobody(_: Any) -> None:
    """An observer, which makes a layer compute its products one by one."""


def learned(layer: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Output and gradients of the parameters and of what is no integer."""
    layer.zero_grad()
    floats = [x for x in inputs if x.is_floating_point()]
    for x in floats:
        x.requires_grad_().grad = None
    y = layer(*inputs)
    (y * torch.arange(1.0, y.shape[-1] + 1)).square().sum().backward()
    grads: list[Any] = [p.grad for p in (*layer.parameters(), *floats)]
    return [y.detach(), *(g.to_dense() if g.is_sparse else g for g in grads)]


def whole(method: Any) -> elision.Recipe:
    """A method that leaves no layer dense."""
    kind = getattr(method, "func", method)
    known = "dense" in kind.__dataclass_fields__
    return method(dense=()) if known else method()


@settings(max_examples=25, deadline=None)
@given(
    options=st.sampled_from(OPTIONS),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_observed_it_is_torchs_layer_to_the_last_bit(
    options: dict[str, Any], shape: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Embedding(9, 4, **options)
    places = torch.randint(0, 9, shape)
    other = copy.deepcopy(layer)
    expected = learned(other, places)
    with watch(layer, seen_by_nobody):
        found = learned(layer, places)
    assert all(map(torch.equal, found, expected))
    assert torch.equal(layer.weight, other.weight)
    assert type(layer) is nn.Embedding


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_a_mask_is_torchs_layer_with_what_it_leaves(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Embedding(9, 4, **options)
    masked = elision.elide(copy.deepcopy(layer), Static(0.5, dense=()))
    mask = masked.get_buffer("elision_weight_for_forward_mask")
    layer.weight.data.mul_(mask)
    places = torch.randint(0, 9, (5, 6))
    found, expected = learned(masked, places), learned(layer, places)
    assert torch.equal(found[0], expected[0])
    # Nobody attached a rule, so the whole gradient is wanted.
    assert torch.equal(found[1], expected[1])
    state = dict(masked.state_dict())
    elision.restore(masked)
    assert set(state) - set(masked.state_dict()) == {k for k in state if "elision" in k}


def test_a_mask_at_rest_wants_its_own_gradient_alone() -> None:
    model = elision.elide(
        nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4)), RigL(0.5, dense=())
    )
    elision.topology.attach(model, torch.optim.SGD(model.parameters(), 0.1), steps=99)
    model(torch.arange(9)).square().sum().backward()
    mask = model[0].elision_weight_for_forward_mask
    assert not model[0].weight.grad[~mask].any()
    assert model[0].weight.grad[mask].all()


@pytest.mark.parametrize("options", [{}, {"sparse": True}], ids=str)
@pytest.mark.parametrize("recipe", sorted(METHODS))
def test_every_recipe_trains_it_or_says_why_not(
    recipe: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(9, 8, **options), nn.Linear(8, 8), nn.Linear(8, 9)
    )
    before = copy.deepcopy(model)
    try:
        elision.elide(model, whole(METHODS[recipe]))
    except ValueError as error:
        assert options["sparse"]
        assert "sparse=False" in str(error)  # noqa: PT017 - others must pass
        assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
        return
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    elision.topology.attach(model, optimizer, steps=8)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randint(0, 9, (3, 5))).square().sum().backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
    assert model[0].weight.grad.is_sparse == bool(options)


def test_the_largest_are_those_of_the_whole_table() -> None:
    torch.manual_seed(0)
    row = {"weight": TopK(0.75)}
    recipe = elision.Recipe("top", Table({Product.FORWARD: row}))
    layer = elision.elide(nn.Embedding(20, 4), recipe)
    kept = TopK(0.75)(layer.weight.detach(), [], True)
    places = torch.randint(0, 20, (7,))
    assert torch.equal(layer(places), kept[places])
    layer(places).sum().backward()
    expected = torch.zeros(20, 4).index_add_(0, places, torch.ones(7, 4))
    assert torch.equal(layer.weight.grad, expected)


def test_values_in_a_format_are_rounded_row_by_row() -> None:
    layer = elision.elide(nn.Embedding(9, 4), "bf16")
    places = torch.tensor([3, 3, 5])
    assert torch.equal(layer(places), layer.weight[places].bfloat16().float())


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_sums_in_an_accumulator_are_those_of_the_one_hot_product(
    options: dict[str, Any],
) -> None:
    torch.manual_seed(0)
    cell = Accumulate("fp16", chunk=4)
    table = Table({Product.WEIGHT_GRAD: {"accumulate": cell}})
    layer = elision.elide(nn.Embedding(9, 4, **options), elision.Recipe("sums", table))
    places, grad = torch.randint(0, 9, (40,)), torch.randn(40, 4)
    layer(places).backward(grad)
    if options.get("scale_grad_by_freq"):
        grad = grad / torch.bincount(places)[places].unsqueeze(1)
    linear = elision.elide(nn.Linear(9, 4, bias=False), elision.Recipe("sums", table))
    hot = F.one_hot(places, 9).float()
    linear(hot).backward(grad)
    expected = linear.weight.grad.T.clone()
    if "padding_idx" in options:
        expected[options["padding_idx"]] = 0
    torch.testing.assert_close(layer.weight.grad, expected, rtol=0, atol=0)


def test_what_is_recorded_metered_and_priced(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 4))
    places = torch.tensor([[1, 0, 3], [3, 5, 8]])
    with elision.metered(model) as meter, elision.record(model) as trace:
        model(places).square().sum().backward()
    found = [p for p in trace if p.name == "0"]
    assert [p.kind for p in found] == [Product.FORWARD, Product.WEIGHT_GRAD]
    assert found[0].geometry == LookupGeometry(6, 4)
    assert torch.equal(found[0].compute(), model[0].weight[places.flatten()])
    summed = torch.zeros(9, 4).index_add_(0, places.flatten(), found[1].compute())
    torch.testing.assert_close(summed, model[0].weight.grad)
    assert not found[1].first[1].any()  # padding
    # A lookup multiplies nothing, as torch counts it.
    assert meter.total().dense_macs == 3 * 6 * 4 * 4
    assert meter.by_layer["0", Product.FORWARD].values == {"input": 6, "weight": 24}
    for machine in elision.accelerators.ACCELERATORS.values():
        for product in found:
            priced = machine().cost(product)
            assert priced.cycles > 0
            assert priced.cycles == machine().cost(product.canonical).cycles
    trace.save(tmp_path / "trace.safetensors")
    again = Trace.load(tmp_path / "trace.safetensors")
    assert [p.geometry for p in again] == [p.geometry for p in trace]
    with elision.record(model, samples=2) as trace:
        model(places).square().sum().backward()
    assert next(iter(trace)).second.shape == (2, 4)


@pytest.mark.parametrize("recipe", ["swat:sparsity=0.5,refresh=2", "fp8", "dfp16"])
def test_checkpointing_changes_nothing(recipe: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8))
    spec, _, parameters = recipe.partition(":")
    own = dict(pair.split("=") for pair in parameters.split(",") if pair)
    if own:
        kind = partial(Swat, dense=())
        elision.elide(model, kind(float(own["sparsity"]), refresh=int(own["refresh"])))
    else:
        elision.elide(model, spec)
    other, places = copy.deepcopy(model), torch.randint(0, 9, (3, 5))
    for _ in range(3):
        model.zero_grad()
        other.zero_grad()
        model(places).square().sum().backward()
        checkpoint(other, places, use_reentrant=False).square().sum().backward()
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
            a.data.sub_(0.01 * a.grad)
            b.data.sub_(0.01 * b.grad)
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def test_copies_pickles_and_a_compiled_layer() -> None:
    torch.manual_seed(0)
    places = torch.randint(0, 9, (3, 5))
    for recipe in (Static(0.5, dense=()), Swat(0.5, dense=())):
        model = elision.elide(nn.Embedding(9, 4), recipe, engine="torch")
        expected = learned(model, places)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert all(map(torch.equal, learned(other, places), expected))
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert all(map(torch.equal, learned(compiled, places), expected))


def test_a_finalised_table_keeps_its_outputs() -> None:
    model = elision.elide(nn.Embedding(9, 4), Static(0.5, dense=()))
    places = torch.arange(9)
    expected = model(places)
    elision.export.finalize(model)
    assert type(model) is nn.Embedding
    assert torch.equal(model(places), expected)


def test_selectors_and_what_methods_leave_dense() -> None:
    model = nn.ModuleDict(
        {
            "emb": nn.Embedding(9, 8),
            "lstm": nn.LSTM(8, 8),
            "att": nn.MultiheadAttention(8, 2),
            "head": nn.Linear(8, 9),
        }
    )
    layers = elidable_layers(model)
    names = names_in_order(layers)
    chosen = {
        selector: [n for n, m in layers.items() if selects(selector, n, m, names)]
        for selector in (":embedding", ":recurrent", ":attention", ":first", ":last")
    }
    assert sorted(chosen.pop(":attention")) == ["att.in_proj", "att.out_proj"]
    assert chosen == {
        ":embedding": ["emb"],
        ":recurrent": ["lstm.ih_l0", "lstm.hh_l0"],
        ":first": ["lstm.ih_l0"],
        ":last": ["head"],
    }
    elision.elide(model, Static(0.5))
    masks = {n for n, b in model.named_buffers() if n.endswith("mask") and b.numel()}
    assert not any(n.startswith("emb") for n in masks)
    others = (":recurrent", ":attention", ":linear")
    elision.elide(model, Static(0.5, distribution="uniform", dense=others))
    masks = {n for n, b in model.named_buffers() if n.endswith("mask") and b.numel()}
    assert masks == {"emb.elision_weight_for_forward_mask"}
    assert model["emb"].elision_weight_for_forward_mask.sum() < 9 * 8


# --- bilinear layers ------------------------------------------------------------------


def pair(rows: tuple[int, ...] = (2, 5)) -> tuple[Tensor, Tensor]:
    return torch.randn(*rows, 3), torch.randn(*rows, 4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(5,), (2, 5), (0,)], ids=str)
def test_bilinear_product_by_product_is_torchs(
    bias: bool, rows: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Bilinear(3, 4, 2, bias=bias), pair(rows)
    expected = learned(layer, *inputs)
    seen: list[Observation] = []
    with watch(layer, seen.append):
        found = learned(layer, *inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    tokens = int(torch.Size(rows).numel())
    assert [s.product.kind for s in seen] == (list(Product) if tokens else [])
    for s in seen:
        assert s.product.canonical.geometry == MatmulGeometry(tokens, 12, 2)
    elision.elide(layer, "dense")
    assert all(map(torch.equal, learned(layer, *inputs), expected))


@pytest.mark.parametrize("recipe", sorted(METHODS))
def test_every_recipe_trains_a_bilinear_layer(recipe: str) -> None:
    torch.manual_seed(0)

    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mix = nn.Linear(8, 8), nn.Bilinear(8, 8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.mix(x, x.tanh())

    model = elision.elide(Mix(), whole(METHODS[recipe]))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    elision.topology.attach(model, optimizer, steps=8)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(6, 8)).square().sum().backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_masked_bilinear_layer_is_torchs_with_what_is_left() -> None:
    torch.manual_seed(0)
    row = {"weight": Mask()}
    table = Table({Product.FORWARD: row, Product.INPUT_GRAD: row})
    layer, inputs = nn.Bilinear(3, 4, 2), pair()
    masked = elision.elide(copy.deepcopy(layer), elision.Recipe("mask", table))
    mask = torch.rand(2, 3, 4) < 0.5
    elision.layers.set_state(masked, "weight_for_forward", "mask", mask)  # pyright: ignore[reportArgumentType]
    layer.weight.data.mul_(mask)
    for a, b in zip(learned(masked, *inputs), learned(layer, *inputs), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(RuntimeError, match="batch dimensions"):
        masked(torch.randn(2, 3), torch.randn(3, 4))


def test_the_format_of_a_bilinear_layers_operands() -> None:
    torch.manual_seed(0)
    row = {"weight": Cast("bf16"), "input": Cast("bf16")}
    layer = elision.elide(
        nn.Bilinear(3, 4, 2), elision.Recipe("half", Table({Product.FORWARD: row}))
    )
    x1, x2 = pair((5,))
    outer = (x1.unsqueeze(2) * x2.unsqueeze(1)).bfloat16().float().flatten(1)
    weight = layer.weight.bfloat16().float().flatten(1)
    torch.testing.assert_close(layer(x1, x2), outer @ weight.T + layer.bias)
