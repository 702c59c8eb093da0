"""Products in narrow accumulators: the kernel, the oracle, the stated order, known errors."""

import math
from itertools import product as pairs

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_layers import convolutions, deep_geometries, lines, matmuls

from elision.engines.accumulating import (
    ChainOverflowWarning,
    compute,
    oracle,
    random_key,
    running_sums,
)
from elision.engines.accumulating import kernel as native
from elision.engines.accumulating.compute import in_order
from elision.engines.accumulating.integers import integers_of
from elision.formats import FORMATS, Floating
from elision.formats.accumulate import Accumulate, sums_in
from elision.native import shared_object
from elision.operands import Cast
from elision.products import (
    Conv1dGeometry,
    Conv2dGeometry,
    Conv3dGeometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)
from elision.products.terms import term_order

built = pytest.mark.skipif(
    shared_object.unavailable() is not None, reason=str(shared_object.unavailable())
)

#: Ways to sum: every rounding, alone and with what can go with it.
CELLS = [
    Accumulate("fp32", 3),
    Accumulate("fp16"),
    Accumulate("fp16", 4),
    Accumulate("fp16", 5, rounds="chunk"),
    Accumulate("fp16", 3, rounding="zero"),
    Accumulate("fp16", 2, rounding="stochastic"),
    Accumulate("fp16", 4, rounds="chunk", rounding="stochastic"),
    Accumulate("fp16", 6, compensated=True),
    Accumulate("bf16", 1),
    Accumulate("bf16", rounding="stochastic"),
    Accumulate("bf16", 7, compensated=True, wide="bf16"),
    Accumulate("fp8-e4m3", 4, rounding="zero", wide="fp16"),
    Accumulate("fp8-e5m2", 2, wide="fp16", wide_chunk=3),
    Accumulate("fp8-e5m2", 3, rounding="stochastic", wide="bf16", wide_chunk=2),
]

SPECIAL = (math.inf, -math.inf, math.nan, -0.0, 1e-42, 3e38)


def operands(kind, geometry, size, special, seed):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for name in kind.operands:
        x = torch.randn(geometry.shape_of(name), generator=generator) * size
        if special is not None:
            place = torch.randint(x.numel(), (), generator=generator)
            x.view(-1)[place] = special
        made.append(x)
    return LayerProduct(kind, geometry, *made)


def same(a, b):
    """Equal with the signs of zeros; a NaN is a NaN."""
    a, b = (torch.where(x.isnan(), math.nan, x) for x in (a, b))
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


@built
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    geometry=st.one_of(convolutions(), matmuls, lines(), deep_geometries),
    kind=st.sampled_from(Product),
    cell=st.sampled_from(CELLS),
    size=st.sampled_from([1.0, 1e-4, 1e-8, 30.0, 1e4, 1e19]),
    special=st.sampled_from([None, None, *SPECIAL]),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_the_kernel_has_the_bits_of_the_oracle(
    geometry, kind, cell, size, special, threads, seed
):
    product = operands(kind, geometry, size, special, seed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = in_order(product, cell, native.sums, seed)
    finally:
        torch.set_num_threads(before)
    assert same(found, in_order(product, cell, oracle.sums, seed))


#: Shapes of more than one tile, block of terms and strip of columns.
LARGE = [
    (Product.FORWARD, Conv2dGeometry(3, 32, 7, 5, 21, 3, 1, 1, 1, 1)),
    (Product.INPUT_GRAD, Conv2dGeometry(2, 66, 9, 12, 34, 3, 2, 1, 1, 1)),
    (Product.WEIGHT_GRAD, Conv2dGeometry(3, 7, 12, 8, 19, 3, 1, 1, 1, 1)),
    (Product.FORWARD, Conv2dGeometry(2, 9, 10, 11, 9, 3, 1, 1, 1, 9)),
    (Product.WEIGHT_GRAD, MatmulGeometry(300, 70, 11)),
]


@built
@pytest.mark.parametrize("cell", CELLS[1:8:2] + CELLS[-2:], ids=str)
@pytest.mark.parametrize(("kind", "geometry"), LARGE)
def test_large_products_have_the_bits_of_the_oracle(kind, geometry, cell):
    product = operands(kind, geometry, 1.0, None, 0)
    found = in_order(product, cell, native.sums, 5)
    assert same(found, in_order(product, cell, oracle.sums, 5))


@settings(max_examples=50, deadline=None)
@given(
    geometry=st.one_of(convolutions(), matmuls, lines(), deep_geometries),
    kind=st.sampled_from(Product),
)
def test_the_ordered_sums_are_the_product(geometry, kind):
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randint(-4, 5, geometry.shape_of(o), generator=generator).float()
        for o in kind.operands
    )
    product = LayerProduct(kind, geometry, first, second)
    found = in_order(product, Accumulate("fp32"), oracle.sums)
    assert torch.equal(found, product.compute())


def literal(product, format):
    """The definition, in loops: of values whose products and sums float64 holds."""
    v, x = product.geometry, product.operands
    out = torch.zeros(product.result_shape)
    rank = range(len(v.kernel))
    axes = {
        "n": range(v.batch),
        "k": range(v.out_channels),
        "c": range(v.in_channels),
        **{f"p{j}": range(v.out_sizes[j]) for j in rank},
        **{f"y{j}": range(v.sizes[j]) for j in rank},
        **{f"r{j}": range(v.kernel[j]) for j in rank},
    }
    p, y, r = ([f"{letter}{j}" for j in rank] for letter in "pyr")
    output, order = {
        Product.FORWARD: (["n", "k", *p], ["c", *r]),
        Product.INPUT_GRAD: (["n", "c", *y], ["k", *r]),
        Product.WEIGHT_GRAD: (["k", "c", *r], ["n", *p]),
    }[product.kind]

    def at(tensor, *place):
        inside = all(0 <= i < n for i, n in zip(place, tensor.shape, strict=True))
        return tensor[place].item() if inside else 0.0

    for place in pairs(*(axes[a] for a in output)):
        i = dict(zip(output, place, strict=True))
        s = 0.0
        for term in pairs(*(axes[a] for a in order)):
            i |= dict(zip(order, term, strict=True))
            tap = [i[f"r{j}"] * v.dilation[j] - v.padding[j] for j in rank]
            if product.kind is Product.INPUT_GRAD:
                steps = [divmod(i[f"y{j}"] - tap[j], v.stride[j]) for j in rank]
                if any(off for _, off in steps):  # the tap does not reach the pixel
                    continue
                a = at(x["grad_output"], i["n"], i["k"], *(o for o, _ in steps))
                b = at(x["weight"], i["k"], i["c"], *(i[n] for n in r))
            else:
                pixel = (i[f"p{j}"] * v.stride[j] + tap[j] for j in rank)
                a = at(x["input"], i["n"], i["c"], *pixel)
                if product.kind is Product.FORWARD:
                    b = at(x["weight"], i["k"], i["c"], *(i[n] for n in r))
                else:
                    b = at(x["grad_output"], i["n"], i["k"], *(i[n] for n in p))
            s = format.round(torch.tensor(a * b + s)).item()
        out[place] = s
    return out


@pytest.mark.parametrize("kind", Product)
@pytest.mark.parametrize(
    "geometry",
    [
        Conv2dGeometry(2, 2, 4, 3, 2, 3, 1, 1, 1, 1),
        Conv2dGeometry(1, 2, 5, 6, 2, 3, 2, 2, 1, 1),
        Conv2dGeometry(1, 2, 7, 6, 2, (3, 2), 3, 0, 2, 1),
        Conv1dGeometry(2, 2, 7, 3, 3, 2, 1, 2),
        Conv3dGeometry(2, 2, 4, 3, 3, 2, (3, 2, 2), (1, 2, 1), (1, 0, 1)),
        Conv3dGeometry(1, 2, 7, 2, 3, 2, (3, 1, 2), (3, 1, 1), (1, 0, 0), (2, 1, 1)),
    ],
)
def test_terms_are_added_in_the_order_that_is_stated(kind, geometry):
    generator = torch.Generator().manual_seed(0)
    first, second = (
        FORMATS["bf16"].round(torch.randn(geometry.shape_of(o), generator=generator))
        for o in kind.operands
    )
    product = LayerProduct(kind, geometry, first, second)
    found = compute(product, Accumulate("fp8-e4m3"))
    assert torch.equal(found, literal(product, FORMATS["fp8-e4m3"]) + 0.0)


def test_no_inserted_zeros_are_terms_of_the_input_gradient():
    layer = Conv2dGeometry(1, 1, 6, 6, 4, 2, 2, 0, 1, 1)
    assert {s.terms for s in term_order(Product.INPUT_GRAD, layer).sums} == {4}


def test_a_sum_of_ones_stops_where_one_is_half_a_step():
    ones, counts = torch.ones(8192), (2047, 2048, 4096, 8192)
    stopped = running_sums(ones, Accumulate("fp16"), counts)
    assert stopped.tolist() == [2047, 2048, 2048, 2048]
    for cell in (
        Accumulate("fp16", 128),
        Accumulate("fp16", 2048, wide="fp32"),
        Accumulate("fp16", compensated=True),
    ):
        # Halves hold even numbers alone above 2048.
        found = running_sums(ones, cell, (2048, 4096, 8192))
        assert found.tolist() == [2048, 4096, 8192]
    bf16 = running_sums(ones, Accumulate("bf16", 128, wide="bf16"), (8192,))
    assert bf16.item() == 8192
    swamped = Accumulate("fp8-e5m2", 4, wide="fp8-e5m2")
    assert running_sums(ones, swamped, (8192,)).item() == 32
    promoted = Accumulate("fp8-e5m2", 4, wide="fp8-e5m2", wide_chunk=4)
    assert running_sums(ones, promoted, (8192,)).item() == 8192


#: Relative errors in 256 x 256 x 4096 products of a positive mean, by significant bits
#: and terms of a chunk, as measured with another emulator on another machine.
ERRORS = {
    11: {0: 7.9e-3, 512: 1.0e-3, 128: 2.9e-4, 32: 1.0e-4, 8: 4.6e-5},
    8: {0: 1.5e-1, 512: 8.6e-3, 128: 2.3e-3, 32: 8.3e-4, 8: 3.7e-4},
    5: {0: 7.0e-1, 512: 1.7e-1, 128: 3.2e-2, 32: 8.0e-3, 8: 3.1e-3},
}


@built
@pytest.mark.parametrize("bits", ERRORS)
def test_errors_are_those_of_the_reference(monkeypatch, bits):
    # The exponents of float32: no sum leaves the range.
    format = Floating("narrow", 8, bits - 1, bias=127)
    monkeypatch.setitem(FORMATS, "narrow", format)
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(64, 4096, generator=generator) for _ in range(2))
    x, w = x.abs(), w + 0.2
    exact = x.double() @ w.double().mT
    product = LayerProduct(Product.FORWARD, MatmulGeometry(64, 4096, 64), x, w)
    for chunk, expected in ERRORS[bits].items():
        found = compute(product, Accumulate("narrow", chunk))
        error = ((found - exact).norm() / exact.norm()).item()
        # Two digits are known of the reference; 4096 of 65536 outputs are computed.
        assert error == pytest.approx(expected, rel=0.1)


def test_stochastic_sums_are_right_on_average_and_never_twice_the_same():
    terms = torch.full((1000,), 0.3)
    cell = Accumulate("fp8-e4m3", rounding="stochastic")
    keys = [random_key(cell, "layer", Product.FORWARD, step) for step in range(400)]
    found = torch.tensor([running_sums(terms, cell, (40,), k).item() for k in keys])
    mean, error = found.mean().item(), found.std().item() / math.sqrt(len(keys))
    assert mean == pytest.approx(12.0, abs=5 * error)
    assert error > 0
    again = running_sums(terms, cell, (40,), keys[0])
    assert again.item() == found[0].item()


def test_chunks_that_are_rounded_once_are_right_without_a_compiler(monkeypatch):
    product = operands(Product.FORWARD, MatmulGeometry(9, 300, 7), 1.0, None, 0)
    cell = Accumulate("fp16", 64, rounds="chunk")
    expected = in_order(product, cell, oracle.sums)
    monkeypatch.setattr(native, "can_compute", lambda cell: False)
    # Torch's order inside a chunk can move a chunk's sum to the next half.
    torch.testing.assert_close(compute(product, cell), expected, rtol=0, atol=0.05)
    cell = Accumulate("fp16", 64)
    expected = in_order(product, cell, oracle.sums)
    assert same(compute(product, cell), expected)


def test_results_have_the_operands_dtype_and_their_own_format():
    product = operands(Product.FORWARD, MatmulGeometry(3, 40, 5), 1.0, None, 0)
    halves = LayerProduct(
        product.kind, product.geometry, product.first.half(), product.second.half()
    )
    assert compute(halves, Accumulate("bf16", 8)).dtype == torch.float16
    found = compute(product, Accumulate(result="fp8-e5m2"))
    assert torch.equal(found, FORMATS["fp8-e5m2"].round(product.compute()))
    found = compute(product, Accumulate("fp16", 8, result="bf16"))
    assert torch.equal(found, found.bfloat16().float())


@pytest.mark.parametrize("kind", Product)
@pytest.mark.parametrize("format", ["dfp16", "dfp8", "int8"])
def test_chains_of_integers_are_exact(kind, format):
    geometry = Conv2dGeometry(2, 3, 6, 5, 4, 3, 2, 1, 1, 1)
    product = operands(kind, geometry, 1.0, None, 0)
    values = [Cast(format)(x, [], True) for x in (product.first, product.second)]
    if format == "dfp16":  # so that a chain of 12 stays below 2^31
        values = [(x * 2**9).round() / 2**9 for x in values]
    exact = LayerProduct(kind, geometry, *(x.double() for x in values)).compute()
    found = compute(LayerProduct(kind, geometry, *values), Accumulate("int32", 12))
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)


def test_a_chain_that_is_too_long_wraps_around_and_says_so():
    full = torch.full((1, 3), 2.0**15 - 1)
    full[0, 2] = 1  # the unit of the scale
    product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 3, 1), full, full)
    found = compute(product, Accumulate("int32", 2)).item()
    assert found == pytest.approx(2 * (2.0**15 - 1) ** 2, rel=1e-6)
    three = torch.full((1, 3), 2.0**15 - 1)
    product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 3, 1), three, three)
    with pytest.warns(ChainOverflowWarning, match="32 bits"):
        found = compute(product, Accumulate("int32"))
    assert found.item() == pytest.approx(3 * (2**15 - 1) ** 2 - 2**32, rel=1e-6)


def test_integers_need_one_scale():
    found = integers_of(torch.tensor([0.5, -3.0, 0.0]))
    assert (found.integers.tolist(), found.scale) == ([1.0, -6.0, 0.0], 0.5)
    assert integers_of(torch.zeros(3)).scale == 1.0
    for values in ([1.0, 2.0**-20], [math.pi, math.e], [1.0, math.inf]):
        with pytest.raises(ValueError, match="int32"):
            integers_of(torch.tensor(values))


def test_what_cannot_be_said_is_refused_in_one_line():
    assert not sums_in(Floating("unsigned", 4, 3, bias=7, signed=False))
    for given_, match in (
        ({"format": "int8"}, "no product can accumulate"),
        ({"format": "mxfp8"}, "no product can accumulate"),
        ({"format": "fp16", "wide": "dfp16"}, "no product can accumulate"),
        ({"format": "fp61"}, r"Accumulate\(format='fp61'\): must be"),
        ({"chunk": 8}, "torch's own sums"),
        ({"format": "int32", "compensated": True}, "not rounded"),
        ({"format": "fp16", "compensated": True, "rounds": "chunk"}, "to nearest"),
        ({"format": "fp16", "chunk": -1}, "integer >= 0"),
    ):
        with pytest.raises(ValueError, match=match) as refused:
            Accumulate(**given_)
        assert "\n" not in str(refused.value)
