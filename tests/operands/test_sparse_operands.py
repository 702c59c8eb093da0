"""The operands of sparse training against their definitions, on whole layers."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import elision
from elision import methods
from elision.common.specs import build
from elision.formats import FLOATS
from elision.methods import METHODS
from elision.native import shared_object
from elision.operands import Cast, Mask, Reuse, TopKSlices, TopNofM, density
from elision.operands.split_reuse import split_input_grad, split_weight_grad
from elision.operands.top_k import keep_from, kth_largest
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product


def top(x, keep):
    """The ``ceil(keep·n)`` largest magnitudes; ties kept."""
    level = (
        x.abs().flatten().sort(descending=True).values[-int(-keep * x.numel() // 1) - 1]
    )
    return torch.where(x.abs() >= level, x, 0)


def products_of(layer, x):
    """Output, input gradient, weight gradient, bias gradient for a fixed G."""
    x = x.clone().requires_grad_()
    y = layer(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    layer.zero_grad()
    y.backward(g)
    return y.detach(), g, x.grad, layer.weight.grad, layer.bias.grad


@pytest.fixture
def conv():
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, 3, stride=2, padding=1), torch.randn(5, 4, 9, 9)


def test_swat_reads_what_its_table_says(conv):
    layer, x = conv
    w = layer.weight.detach().clone()
    elision.elide(layer, methods.Swat(0.75, dense=()))
    y, g, dx, dw, db = products_of(layer, x)
    geometry = Conv2dGeometry.of(x.shape, w.shape, stride=2, padding=1)
    sparse_w, sparse_x = top(w, 0.25), top(x, 0.25)
    assert density(sparse_w) == pytest.approx(0.25, abs=1 / w.numel())
    out = F.conv2d(x, sparse_w, layer.bias, 2, 1)
    assert torch.allclose(y, out, atol=1e-5)
    expected = LayerProduct(Product.INPUT_GRAD, geometry, g, sparse_w).compute()
    assert torch.allclose(dx, expected, atol=1e-5)
    expected = LayerProduct(Product.WEIGHT_GRAD, geometry, g, sparse_x).compute()
    assert torch.allclose(dw, expected, atol=1e-4)
    assert torch.allclose(db, g.sum((0, 2, 3)), atol=1e-4)
    # Straight-through: what was left out learns.
    assert dw[sparse_w == 0].abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@given(
    values=st.lists(
        st.sampled_from([0.0, -0.5, 0.5, 1.0, -2.0, 1e-38, torch.inf, torch.nan])
    ),
    level=st.sampled_from([0.0, 1e-38, 0.5, 1.0, 2.0, torch.inf, torch.nan]),
)
def test_keeping_from_a_level_is_its_definition(dtype, values, level):
    x, level = torch.tensor(values, dtype=dtype), torch.tensor(level, dtype=dtype)
    expected = torch.where(x.abs() < level, 0, x)
    assert torch.equal(keep_from(x, level).nan_to_num(7.0), expected.nan_to_num(7.0))


def test_swat_saves_the_sparse_operands_alone(conv):
    layer, x = conv
    elision.elide(layer, methods.Swat(0.75, dense=()))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t) or t, lambda t: t
    ):
        layer(x.requires_grad_())
    assert len(saved) == 2
    assert all(density(t) <= 0.26 for t in saved)


@pytest.mark.parametrize(
    ("slices", "axes"), [("channel", (2, 3)), ("filter", (1, 2, 3))]
)
def test_structured_swat_keeps_the_slices_of_largest_norm(conv, slices, axes):
    layer, _ = conv
    w = layer.weight.detach()
    kept = TopKSlices(0.5, slices)(w, [], True)
    norms = w.abs().sum(axes)
    alive = kept.abs().sum(axes) > 0
    assert int(alive.sum()) == -(-norms.numel() // 2)
    assert norms[alive].min() >= norms[~alive].max()
    assert torch.equal(kept[kept != 0], w[kept != 0])


def test_structured_swat_takes_linear_layers():
    w = torch.randn(6, 10)
    assert density(TopKSlices(0.5, "channel")(w, [], True)) == 0.5
    assert int((TopKSlices(0.5, "filter")(w, [], True).abs().sum(1) > 0).sum()) == 3


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_n_of_m_holds_in_every_group(n, groups, extra, seed):
    m = n + extra
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(3, groups * m, 2, 2, generator=g)
    kept = TopNofM(n, m).kept(w)
    counts = kept.view(3, groups, m, 2, 2).sum(2)
    assert (counts == n).all()
    dropped = torch.where(kept, 0, w.abs()).view(3, groups, m, 2, 2).amax(2)
    smallest = torch.where(kept, w.abs(), torch.inf).view(3, groups, m, 2, 2).amin(2)
    assert (dropped <= smallest).all()


def test_a_mask_never_drawn_keeps_its_operand():
    layer = nn.Linear(4, 4)
    plain = layer(torch.eye(4)).detach().clone()
    table = elision.Table({Product.FORWARD: {"weight": Mask()}})
    elision.elide(layer, elision.Recipe("mine", table))
    assert torch.equal(layer(torch.eye(4)), plain)


@pytest.mark.parametrize(
    "geometry",
    [
        Conv2dGeometry(6, 4, 9, 8, 5, 3, stride=2, padding=1),
        Conv2dGeometry(3, 4, 7, 7, 8, 1, groups=2),
        MatmulGeometry(7, 5, 6),
    ],
)
def test_the_split_form_of_resprop_is_the_direct_form(geometry):
    torch.manual_seed(0)
    g = torch.randn(geometry.shape_of("grad_output"))
    x, w = (torch.randn(geometry.shape_of(o)) for o in ("input", "weight"))
    reuse = Reuse(0.9, initial_threshold=0.8)
    state = reuse.initial_state()
    state |= {n: torch.zeros(s) for n, s in reuse.state_shapes(g.shape).items()}
    reuse.apply(torch.randn_like(g), state, True)
    reference = state["reference"].clone()
    hybrid = reuse.apply(g, state, True)
    difference = hybrid - reference
    difference[difference.abs() < 1e-6] = 0
    assert 0 < density(difference) < 0.8

    def direct(product, other):
        return LayerProduct(product, geometry, hybrid, other).compute()

    dx = split_input_grad(reference, difference, w, geometry)
    assert torch.allclose(dx, direct(Product.INPUT_GRAD, w), rtol=1e-4, atol=1e-4)
    dw = split_weight_grad(reference, difference, x, geometry)
    assert torch.allclose(dw, direct(Product.WEIGHT_GRAD, x), rtol=1e-4, atol=1e-4)


def test_resprop_reaches_its_band_within_thirty_steps():
    # Values of scale 0.1 as gradients may have; t doubles from 1e-7, 20 times to 0.1.
    reuse = Reuse(0.9)
    state = reuse.initial_state()
    state |= {"reference": torch.zeros(1, 64), "shared": torch.zeros(1, 64)}
    densities = []
    for step in range(60):
        g = torch.Generator().manual_seed(step)
        reuse.apply(0.1 * torch.randn(32, 64, generator=g), state, True)
        densities.append(float(state["density"]))
    settled = densities[30:]
    assert min(settled) < 0.15 < max(settled)
    assert len({round(t, 9) for t in settled}) > 1


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_built_by_name_and_says_what_it_is(name):
    method = build("recipe", name, METHODS)
    assert str(method)
    assert name == "dense" or method.citation().startswith("@")
    assert hash(method) == hash(build("recipe", name, METHODS))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_cast_clips_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor([1.3, -6e4, torch.finfo(dtype).max, torch.nan], dtype=dtype)
    expected = FLOATS[name].saturating.round(x.float()).to(dtype)
    found = Cast(name)(x, [], True)
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
    # Scaled, the largest magnitude comes back as itself.
    scaled = Cast(name, "tensor")(x[:2], [], True)
    torch.testing.assert_close(scaled[1], x[1])


@pytest.mark.skipif(shared_object.unavailable() is not None, reason="no kernels here")
@settings(max_examples=25, deadline=None)
@given(
    st.integers(4096, 9000),
    st.sampled_from([1e-4, 0.1, 0.5, 1.0]),
    st.sampled_from(["normal", "few values", "zero", "nan", "infinite"]),
    st.integers(0, 99),
)
def test_a_threshold_sought_by_the_kernel_is_that_of_all_in_order(size, keep, of, seed):
    shared_object.load()
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed)).abs()
    if of == "few values":
        x = (4 * x).round()
    elif of == "zero":
        x = torch.where(x < 1, 0.0, x)
    elif of != "normal":
        x[seed :: seed + 2] = {"nan": torch.nan, "infinite": torch.inf}[of]
    expected = kth_largest(x.double(), keep)
    assert kth_largest(x, keep).double() == expected
