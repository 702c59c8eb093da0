"""Checksums of products: exact for integers, within rounding for floats, and sharp."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elision.faults import flip
from elision.faults.defence.abft import checked_products
from elision.faults.defence.checksums import check
from elision.faults.defence.sums import sums_of, sums_slowly, weighted, weighted_slowly
from elision.faults.defence.windows import (
    correlated,
    correlated_slowly,
    met,
    met_inside,
    met_inside_slowly,
    met_slowly,
)
from elision.layers.watch import watch
from elision.products import ConvolutionParameters, Product, dense

SIZES = st.integers(1, 3)


@st.composite
def layers(draw):
    """Operands and parameters of a drawn layer, integers as float64."""
    axes = draw(st.integers(0, 2))
    each = [
        draw(st.tuples(SIZES, SIZES, st.integers(0, 2), SIZES)) for _ in range(axes)
    ]
    groups = draw(st.integers(1, 2))
    n, c, k = (draw(SIZES) for _ in range(3))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    kernel = [draw(SIZES) for _ in range(axes)]
    strides, dilations, paddings = ([e[i] for e in each] for i in (0, 1, 2))
    sizes = [
        d * (r - 1) + 1 + draw(st.integers(0, 4))
        for d, r in zip(dilations, kernel, strict=True)
    ]
    if not axes:
        groups, how = 1, None
    else:
        how = ConvolutionParameters(
            tuple(strides), tuple(paddings), tuple(dilations), groups
        )
    x = torch.randint(-9, 10, (n, c * groups, *sizes)).double()
    w = torch.randint(-9, 10, (k * groups, c, *kernel)).double()
    y = dense.forward(x, w, None, how)
    g = torch.randint(-9, 10, y.shape).double()
    return x, w, y, g, how


@given(layers())
@settings(max_examples=60, deadline=None)
def test_sums_of_integer_products_are_exact(drawn):
    x, w, y, g, how = drawn
    dx, dw, _ = dense.gradients(g, x, w, how, shapes=(x.shape, w.shape))
    for kind, first, second, result in (
        (Product.FORWARD, x, w, y),
        (Product.INPUT_GRAD, g, w, dx),
        (Product.WEIGHT_GRAD, g, x, dw),
    ):
        whole = check(kind, first.long(), second.long(), result.long(), None, how)
        assert torch.equal(whole.found, whole.expected)
        assert whole.ok
        broken = result.long().clone()
        broken.view(-1)[broken.numel() // 2] += 1
        assert (
            int(check(kind, first.long(), second.long(), broken, None, how).wrong.sum())
            == 1
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("positive", [False, True])
def test_a_flip_above_the_bound_is_found_and_rounding_is_not(dtype, positive):
    torch.manual_seed(0)
    how = ConvolutionParameters((2, 1), (1, 1), (1, 1), 2)
    for _ in range(5):
        x, w = torch.randn(4, 8, 9, 9), torch.randn(6, 4, 3, 3)
        if positive:
            x, w = x.abs(), w.abs()
        x, w, bias = x.to(dtype), w.to(dtype), torch.randn(6).to(dtype)
        y = dense.forward(x, w, bias, how)
        done = check(Product.FORWARD, x, w, y, bias, how)
        assert done.ok
        bits = 8 * y.element_size()
        for bit in range(bits):
            broken = flip(y, 17, bit)
            off = (broken.double() - y.double()).view(-1)[17].abs()
            found = check(Product.FORWARD, x, w, broken, bias, how)
            channel = 17 // (y.shape[2] * y.shape[3])
            # What remains of the clean difference, besides the flip.
            clean = (done.found - done.expected).abs()[channel]
            if not off.isfinite() or off > 1.001 * done.tolerance[channel] + clean:
                assert found.wrong.nonzero().flatten().tolist() == [channel]


class _Flips:
    """Flips one bit of the nth result."""

    def __init__(self, nth):
        self.nth, self.seen, self.kind = nth, 0, None

    def __call__(self, observation):
        pass

    def computed(self, done):
        if self.seen == self.nth:
            value = done.result.detach()
            value.copy_(flip(value, value.numel() // 2, 30))
            self.kind, self.layer = done.kind, done.layer
        self.seen += 1


@pytest.mark.parametrize("recipe", [None, "swat:sparsity=0.5", "static:sparsity=0.5"])
def test_a_flip_in_any_product_of_a_step_is_named(recipe):
    import elision

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    )
    if recipe is not None:
        elision.elide(model, recipe, engine="torch")
    x = torch.randn(4, 3, 8, 8)
    if recipe is not None:
        elision.topology.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with checked_products(model) as clean:
        model(x).sum().backward()
    assert not clean.findings
    for nth in range(clean.checked + sum(clean.unchecked.values())):
        flips = _Flips(nth)
        with watch(model, flips), checked_products(model) as products:
            model(x).sum().backward()
        if recipe and "static" in recipe and flips.kind is Product.WEIGHT_GRAD:
            assert products.unchecked["weight gradient of a masked layer"]
            continue
        (finding,) = products.findings[:1]
        assert (finding.layer, finding.product) == (flips.layer, flips.kind)
        assert repr(flips.layer) in str(finding)


def test_only_some_products_are_checked_on_demand():
    model = nn.Linear(4, 4)
    with checked_products(model, every=3) as products:
        for _ in range(6):
            model(torch.ones(2, 4)).sum().backward()
    assert products.checked == 4
    with pytest.raises(ValueError, match="every=0"), checked_products(model, every=0):
        pass


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_one_pass_over_a_weight_gives_what_torch_does(groups, transposed):
    torch.manual_seed(0)
    w = torch.randn(6, 4, 9)
    sums = torch.randn(6 if transposed else 4 * groups, 9).double()
    fast = weighted(w, sums, groups, transposed=transposed)
    slow = weighted_slowly(w.double(), sums, groups, transposed=transposed)
    for a, b in zip(fast, slow, strict=True):
        assert a.shape == b.shape == (4 * groups if transposed else 6,)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_one_pass_over_an_operand_gives_what_torch_does(groups):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 6)
    for a, b in zip(sums_of(x, groups), sums_slowly(x.double(), groups), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    x[1, 2, 3, 4] = torch.nan
    assert sums_of(x, groups).by_place.isnan().sum() == 1


@given(layers())
@settings(max_examples=60, deadline=None)
def test_sums_over_windows_are_those_of_torch(drawn):
    """The kernels of two axes against any number of axes, on the same images."""
    x, w, y, g, how = drawn
    if how is None:
        return
    place, inside = x.sum(0), g.sum(0)
    cases = (
        (met, met_slowly, place, w.shape[2:], y.shape[2:]),
        (met_inside, met_inside_slowly, inside, w.shape[2:], x.shape[2:]),
    )
    for fast, slow, image, kernel, sizes in cases:
        found = fast(image.float(), kernel, sizes, how)
        assert torch.equal(found, slow(image, kernel, sizes, how))
    mine, theirs = g[:, : how.groups], x[:, : how.groups]
    found = correlated(
        mine.float().contiguous(), theirs.float().contiguous(), w.shape[2:], how
    )
    assert torch.equal(found, correlated_slowly(mine, theirs, w.shape[2:], how))
