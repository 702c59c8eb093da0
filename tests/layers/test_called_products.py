"""Products of a model's own calls: attention, matmul, einsum, by name in the table."""

import copy
import dataclasses
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import elision
from elision import Product
from elision.layers import NoEffectWarning, Recipe, Table
from elision.layers.between.contraction import of_einsum, of_matmul
from elision.methods import Fp8, MeProp, Static, Swat
from elision.operands import TopK
from elision.products import MatmulGeometry

SIZES = st.integers(1, 4)


def learned(model: nn.Module, *inputs: Any) -> list[Tensor]:
    """The output and every gradient, of equal random numbers."""
    torch.manual_seed(1)
    model.zero_grad()
    y = model(*inputs)
    y = y if isinstance(y, Tensor) else y[0]
    y.square().sum().backward()
    return [
        y.detach(),
        *(p.grad.clone() for p in model.parameters() if p.grad is not None),
    ]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for y, e in zip(found, expected, strict=True):
        torch.testing.assert_close(y, e, rtol=1e-4, atol=1e-5)


# --- calls as products of matrices ---------------------------------------------------------


@given(st.data())
def test_matmul_broadcasts_as_torch_does(data: st.DataObject) -> None:
    inner, batch = data.draw(SIZES), data.draw(st.lists(SIZES, max_size=3))

    def operand(*last: int) -> Tensor:
        if len(last) == 1:
            return torch.randn(last)
        kept = batch[data.draw(st.integers(0, len(batch))) :]
        ones = [n if data.draw(st.booleans()) else 1 for n in kept]
        return torch.randn(*ones, *last)

    vectors = data.draw(st.booleans()), data.draw(st.booleans())
    a = operand(inner) if vectors[0] else operand(data.draw(SIZES), inner)
    b = operand(inner) if vectors[1] else operand(inner, data.draw(SIZES))
    found = of_matmul(a, b)
    assert found is not None
    torch.testing.assert_close(found.shaped(found.x @ found.w.mT), a @ b)


EQUATIONS = (
    "btd,bsd->bts",
    "bqhd,bkhd->bhqk",
    "bhqk,bkhd->bqhd",
    "...ij,...jk->...ik",
    "ij,jk",
    "ij,jk->ki",
    "i,i->",
    "bi,oij->bo",
    "abc,cd->dab",
    "b...d,cd->b...c",
    " bhqd , bhkd -> bhqk ",
)


@given(st.sampled_from(EQUATIONS), st.lists(SIZES, min_size=12, max_size=12), SIZES)
def test_einsum_is_read_as_torch_reads_it(
    equation: str, sizes: list[int], hidden: int
) -> None:
    letters = sorted({c for c in equation if c.isalpha()})
    size = dict(zip(letters, sizes, strict=False))
    operands = [
        torch.randn([size[i] for i in part.replace("...", "").strip()])
        for part in equation.partition("->")[0].split(",")
    ]
    if "..." in equation:
        first = operands[0]
        at = equation.index("...")
        operands[0] = first.unsqueeze(at).repeat_interleave(hidden, at)
        if equation.count("...") > 2:
            operands[1] = operands[1].unsqueeze(0).repeat_interleave(hidden, 0)
    found = of_einsum(equation, *operands)
    assert found is not None
    torch.testing.assert_close(
        found.shaped(found.x @ found.w.mT), torch.einsum(equation, *operands)
    )


@pytest.mark.parametrize("equation", ["ii,ij->j", "ij,ij->ij", "i,j->ij", "ij,jk->il"])
def test_other_equations_are_none(equation: str) -> None:
    assert of_einsum(equation, torch.ones(2, 2), torch.ones(2, 2)) is None


# --- calls in models -----------------------------------------------------------------------


class Calls(nn.Module):
    """A layer, and a function of what it gives."""

    def __init__(self, call: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.call = nn.Linear(8, 24), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(*self.qkv(x).chunk(3, -1))


sdpa = F.scaled_dot_product_attention
HEADS = (2, 4)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, HEADS).transpose(1, 2)


def by_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return sdpa(heads(q), heads(k), heads(v))


OPEN = torch.randn(5, 5) > -0.5
OPEN[2] = False  # a query that no key is open to

CALLS: dict[str, tuple[Callable[..., Tensor], list[str]]] = {
    "attention": (sdpa, ["qk", "pv"]),
    "heads": (by_heads, ["qk", "pv"]),
    "causal": (lambda *x: sdpa(*x, is_causal=True, scale=0.3), ["qk", "pv"]),
    "open keys": (lambda q, k, v: sdpa(q, k, v, OPEN), ["qk", "pv"]),
    "added": (lambda q, k, v: sdpa(q, k, v, torch.randn(5, 5)), ["qk", "pv"]),
    "dropout": (lambda *x: sdpa(*x, dropout_p=0.5), ["qk", "pv"]),
    "grouped": (
        lambda q, k, v: sdpa(
            heads(q), heads(k)[:, :1], heads(v)[:, :1], enable_gqa=True
        ),
        ["qk", "pv"],
    ),
    "twice": (lambda q, k, v: sdpa(sdpa(q, k, v), k, v), ["qk", "pv", "qk_1", "pv_1"]),
    "operators": (lambda q, k, v: (q @ k.mT).softmax(-1) @ v, ["matmul", "matmul_1"]),
    "bmm": (lambda q, k, v: torch.bmm(q.bmm(k.mT), v), ["bmm", "bmm_1"]),
    "one product": (lambda q, k, v: q[0].mm(k[0].T) + v[0, 0, 0], ["mm"]),
    "einsum": (
        lambda q, k, v: torch.einsum("bqd,bkd->bqk", q, k) * v.sum(),
        ["einsum"],
    ),
    "linear": (lambda q, k, v: F.linear(q, k[0], v[0, :, 0]), ["linear"]),
    "scaled sum": (
        lambda q, k, v: torch.baddbmm(v @ v.mT, q, k.mT, beta=0.5, alpha=2.0),
        ["matmul", "baddbmm"],
    ),
    "row": (lambda q, k, v: torch.addmm(v[0, 0, :5], q[0], k[0].T), ["addmm"]),
    "vector": (lambda q, k, v: q @ k[0, 0] + v.sum(-1), ["matmul"]),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_watched_call_computes_what_it_did(case: str) -> None:
    call, names = CALLS[case]
    model, x = Calls(call), torch.randn(2, 5, 8)
    if case == "one product":
        x = torch.randn(1, 5, 8)
    expected = learned(model, x)
    with elision.record(model) as trace:
        found = learned(model, x)
    assert_same(found, expected)
    made = [p.name for p in trace if p.kind is Product.FORWARD and p.name != "qkv"]
    assert made == names
    for product in trace:  # every product of the trace is the one its operands give
        assert (
            product.geometry.shape_of(product.kind.operands[0]) == product.first.shape
        )
        assert (
            product.geometry.shape_of(product.kind.operands[1]) == product.second.shape
        )
    assert type(model) is Calls
    assert not model._forward_pre_hooks
    with elision.metered(model) as meter:
        learned(model, x)
    assert not meter.outside
    assert not meter.kernels


def test_gradients_of_a_product_read_what_its_forward_read() -> None:
    model, x = Calls(CALLS["heads"][0]), torch.randn(2, 5, 8)
    with elision.record(model) as trace:
        learned(model, x)
    of = {(p.name, p.kind): p for p in trace}
    forward, to_x, to_w = (of["pv", kind] for kind in Product)
    assert forward.geometry == MatmulGeometry(5, 5, 4, batch=4)
    torch.testing.assert_close(forward.first.sum(-1), torch.ones(4, 5))  # probabilities
    assert torch.equal(to_x.second, forward.second)
    assert torch.equal(to_w.second, forward.first)
    assert torch.equal(to_x.first, to_w.first)


def test_both_products_of_attention_have_their_names_in_torchs_layer() -> None:
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(3, 5, 8)
    for wanted in (True, False):
        with elision.record(layer, layers=("*qk", "pv")) as trace:
            layer(x, x, x, need_weights=wanted)
        assert [p.name for p in trace] == ["qk", "pv"]


def test_samples_of_a_batch_are_products() -> None:
    model, x = Calls(CALLS["heads"][0]), torch.randn(2, 5, 8)
    for samples, batch in ((1, 1), (3, 3), (None, 4)):
        with elision.record(model, layers=("qk",), samples=samples) as trace:
            learned(model, x)
        assert {p.geometry for p in trace} == {MatmulGeometry(5, 4, 5, batch=batch)}


def test_a_name_that_a_module_has_is_not_a_products() -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matmul = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.matmul(x) @ x.mT

    with elision.metered(model := Taken()) as meter:
        model(torch.randn(3, 4))
    assert [name for name, _ in meter.by_layer] == ["matmul", "matmul_1"]


@pytest.mark.parametrize(
    ("call", "dtype"),
    [
        (
            lambda q, k, v: (q @ k.mT).sparse_mask((q @ k.mT).to_sparse()).to_dense(),
            None,
        ),
        (lambda q, k, v: torch.einsum("bqd,bkd,bkd->bqk", q, k, v), None),
        (lambda q, k, v: (q @ torch.zeros(8, 0)).sum() + k + v, None),
        (lambda q, k, v: torch.vmap(torch.matmul)(q, k.mT) + v[:, :, :5], None),
        (lambda q, k, v: torch.matmul(q, k.mT, out=None), None),
    ],
)
def test_calls_out_of_reach_run_as_they_are(call: Any, dtype: Any) -> None:
    del dtype
    model, x = Calls(call), torch.randn(2, 5, 8)
    expected = learned(model, x)
    with elision.metered(model):
        assert_same(learned(model, x), expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_region_checkpointed_apart_from_a_module_runs_as_it_is(
    reentrant: bool,
) -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            return checkpoint(sdpa, q, k, v, use_reentrant=reentrant)  # pyright: ignore

    model, x = Apart(), torch.randn(2, 5, 8)
    expected = learned(model, x)
    with elision.metered(model):
        assert_same(learned(model, x), expected)


# --- recipes -------------------------------------------------------------------------------

TOP = TopK(0.5)
SPARSE = Table({Product.FORWARD: {"weight": TOP}, Product.WEIGHT_GRAD: {"input": TOP}})


def test_a_recipe_reaches_the_products_that_it_names() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            return Sparse.apply(q, k).softmax(-1) @ v  # pyright: ignore

    class Sparse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor) -> Tensor:
            ctx.save_for_backward(TOP(q, [], True), k)
            return q @ TOP(k, [], True).mT

        @staticmethod
        def backward(ctx: Any, *g: Tensor) -> Any:
            q, k = ctx.saved_tensors
            return g[0] @ k, g[0].mT @ q

    model, x = Calls(CALLS["operators"][0]), torch.randn(2, 5, 8)
    recipe = Recipe("half", SPARSE, dense=("qkv",), products=("matmul",))
    elision.elide(model, recipe)
    assert_same(learned(model, x), learned(Written(), x))
    with elision.metered(model) as meter:
        learned(model, x)
    ratio = {key: work.ratio for key, work in meter.by_layer.items()}
    assert ratio["matmul", Product.FORWARD] == pytest.approx(0.5, abs=0.02)
    assert ratio["matmul_1", Product.FORWARD] == 1
    found = elision.explain(model, x)
    assert found.reached == ["matmul"]
    assert ("", "matmul_1") in {(part.name, part.what) for part in found.unreached}
    with pytest.raises(
        ValueError, match="own calls, which no plain model does: matmul"
    ):
        elision.export.finalize(model)
    elision.restore(model)
    assert_same(learned(model, x), learned(Calls(CALLS["operators"][0]), x))
    assert type(model) is Calls


METHODS = {
    "swat": Swat(0.5, dense=(), products=("*",)),
    "meprop": MeProp(0.5, dense=(), products=("*",)),
    "fp8": Fp8("tensor", products=("*",)),
    "swat+fp8": Swat(0.5, products=("*qk",)) + Fp8("tensor", products=("*pv",)),
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_train_attention_and_go_to_a_file_and_back(method: str) -> None:
    recipe = METHODS[method]
    model, x = Calls(CALLS["heads"][0]), torch.randn(2, 5, 8)
    keys = set(model.state_dict())
    dense = learned(copy.deepcopy(model), x)
    elision.elide(model, recipe)
    found = learned(model, x)
    assert not torch.equal(found[0], dense[0])
    assert {k for k in model.state_dict() if "elision" not in k} == keys
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model.to("cpu")))):
        assert_same(learned(again, x), found)
    plain = elision.methods.recipe_from_dict(recipe.to_dict())
    assert plain == recipe
    assert_same(learned(elision.elide(Calls(CALLS["heads"][0]), plain), x), found)
    assert "products of calls" in str(Recipe("mine", recipe.table, products=("*",)))


def test_a_table_that_keeps_all_is_torchs_attention() -> None:
    model, x = Calls(CALLS["dropout"][0]), torch.randn(2, 5, 8)
    expected = learned(model, x)
    elision.elide(model, Swat(0.0, dense=(), products=("*",)))
    assert_same(learned(model, x), expected)


@pytest.mark.parametrize(
    "recipe", [Static(0.5), Swat(0.5, refresh=10)], ids=lambda r: r.key
)
def test_transforms_with_state_are_refused(recipe: Recipe) -> None:
    model = Calls(sdpa)
    with pytest.raises(ValueError, match="keeps state between steps"):
        elision.elide(model, dataclasses.replace(recipe, products=("*",)))
    assert type(model.qkv) is nn.Linear


def test_a_pattern_that_names_nothing_is_said_once() -> None:
    model, x = Calls(sdpa), torch.randn(2, 5, 8)
    elision.elide(model, Swat(0.5, dense=(), products=("*.scores",)))
    with pytest.warns(NoEffectWarning, match=r"'\*.scores' names none .*: qk, pv"):
        model(x)
    with warnings.catch_warnings(action="error"):
        model(x)
    with pytest.raises(
        ValueError, match="names no layer; layers: qkv, and products of"
    ):
        elision.record(model, layers=("scores",)).__enter__()


def test_what_runs_as_it_is_although_a_recipe_names_it_is_said() -> None:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return checkpoint(sdpa, q, k, v, use_reentrant=False)  # pyright: ignore

    model, x = Calls(call), torch.randn(2, 5, 8)
    elision.elide(model, Swat(0.5, dense=(), products=("qk",)))
    with pytest.warns(
        NoEffectWarning, match="qk runs as it is: it is checkpointed apart"
    ):
        model(x).sum().backward()


@pytest.mark.filterwarnings("ignore::elision.functional.softmax.RangeWarning")
def test_a_replaced_softmax_is_met_inside() -> None:
    model, x = Calls(sdpa), torch.randn(2, 5, 8)
    expected = elision.elide(
        copy.deepcopy(model), Recipe("dense"), functions={"softmax": "taylor-softmax"}
    )
    recipe = Recipe("top", SPARSE, dense=("qkv",), products=("pv",))
    elision.elide(model, recipe, functions={"softmax": "taylor-softmax"})
    with elision.record(model) as trace:
        y = model(x)
    (read,) = (p for p in trace if p.name == "pv" and p.kind is Product.FORWARD)
    with elision.record(expected) as other:
        z = expected(x)
    (exact,) = (p for p in other if p.name == "pv" and p.kind is Product.FORWARD)
    torch.testing.assert_close(read.first, exact.first)  # the series' probabilities
    assert not torch.equal(y, z)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputed_model_reads_what_it_read(reentrant: bool) -> None:
    model, x = Calls(sdpa), torch.randn(2, 5, 8, requires_grad=True)
    elision.elide(model, Swat(0.5, dense=(), products=("*",)))
    expected = learned(model, x)
    whole = nn.Sequential(model)
    whole.forward = lambda x: checkpoint(model, x, use_reentrant=reentrant)  # pyright: ignore
    assert_same(learned(whole, x), expected)


def test_autocast_and_compiled_models_compute_the_recipe() -> None:
    model, x = Calls(CALLS["heads"][0]), torch.randn(2, 5, 8)
    elision.elide(model, Swat(0.5, dense=(), products=("*",)))
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(x), expected)
    torch._dynamo.reset()


def test_an_interrupted_pass_leaves_nothing_behind() -> None:
    class Interrupted(Calls):
        stops = True

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            y = sdpa(q, k, v)
            if self.stops:
                raise KeyboardInterrupt
            return y

    model, x = Interrupted(sdpa), torch.randn(2, 5, 8)
    with elision.metered(model) as meter:
        with pytest.raises(KeyboardInterrupt):
            model(x)
        torch.matmul(x, x.mT)  # none of the model's
        model.stops = False
        model(x)
    assert {name for name, _ in meter.by_layer} == {"qkv", "qk", "pv"}
    assert meter.by_layer["qk", Product.FORWARD].dense_macs == 2 * 2 * 5 * 5 * 8
