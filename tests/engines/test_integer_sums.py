"""Chains of integers by the kernel have the bits of the oracle, and its refusals."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.engines.accumulating import ChainOverflowWarning, compute
from elision.engines.accumulating import integer_kernel as kernel
from elision.engines.accumulating import integers as oracle
from elision.engines.accumulating.compute import in_order
from elision.native import shared_object
from elision.operands import Accumulate, Cast
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

pytestmark = pytest.mark.skipif(
    shared_object.unavailable() is not None, reason="no compiler for the kernels"
)


def rounded(kind, geometry, format, seed):
    """A product whose operands are values of a format."""
    generator = torch.Generator().manual_seed(seed)
    values = [
        Cast(format)(
            torch.randn(geometry.shape_of(name), generator=generator), [], True
        )
        for name in kind.operands
    ]
    return LayerProduct(kind, geometry, *values)


def both(product, cell):
    """The result of the kernel and that of the oracle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChainOverflowWarning)
        return [in_order(product, cell, way.sums) for way in (kernel, oracle)]


CONVOLUTIONS = [
    Conv2dGeometry(2, 3, 6, 5, 4, kernel=3, stride=2, padding=1),
    Conv2dGeometry(1, 4, 9, 7, 6, kernel=(3, 1), dilation=2, groups=2),
    Conv2dGeometry(2, 5, 4, 4, 5, kernel=3, padding=1, groups=5),
    Conv2dGeometry(1, 70, 3, 3, 33, kernel=1),
]


@pytest.mark.parametrize("format", ["dfp16", "dfp12", "dfp8", "int8", "int4", "int16"])
@pytest.mark.parametrize("kind", Product)
@pytest.mark.parametrize(
    "geometry", [*CONVOLUTIONS, MatmulGeometry(7, 37, 19)], ids=str
)
def test_the_kernel_has_the_bits_of_the_oracle(geometry, kind, format):
    product = rounded(kind, geometry, format, 0)
    for chunk in (0, 1, 3, 8):
        found, expected = both(product, Accumulate("int32", chunk))
        assert torch.equal(found, expected), chunk


@settings(max_examples=40)
@given(
    rows=st.integers(1, 40),
    inner=st.integers(1, 700),
    columns=st.integers(1, 70),
    chunk=st.sampled_from([0, 1, 2, 5, 64, 511, 600]),
    kind=st.sampled_from(Product),
    seed=st.integers(0, 2**16),
)
def test_matrix_products_of_any_size(rows, inner, columns, chunk, kind, seed):
    product = rounded(kind, MatmulGeometry(rows, inner, columns), "int8", seed)
    found, expected = both(product, Accumulate("int32", chunk))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_result(threads):
    product = rounded(Product.WEIGHT_GRAD, CONVOLUTIONS[0], "dfp12", 1)
    before = torch.get_num_threads()
    expected = compute(product, Accumulate("int32", 6))
    try:
        torch.set_num_threads(threads)
        assert torch.equal(compute(product, Accumulate("int32", 6)), expected)
    finally:
        torch.set_num_threads(before)


@settings(max_examples=60)
@given(
    values=st.lists(st.integers(-(2**15), 2**15), min_size=1, max_size=40),
    exponent=st.integers(-140, 90),
)
def test_integers_and_scale_are_the_oracles(values, exponent):
    x = torch.tensor(values, dtype=torch.float64).mul(2.0**exponent).float()
    found, expected = kernel.integers_of(x), oracle.integers_of(x)
    if found is None:  # 2^15 is an integer of the oracle's alone
        assert expected.integers.max() == 2**15
        return
    assert found[1] == expected.scale
    assert torch.equal(found[0].double(), expected.integers)
    assert found[2] == expected.integers.abs().max()


def test_what_is_no_integer_is_refused_as_by_the_oracle():
    for values in ([1.0, 2.0**-20], [math.pi, math.e]):
        x = torch.tensor([values])
        assert kernel.integers_of(x) is None
        product = LayerProduct(Product.FORWARD, MatmulGeometry(1, len(values), 1), x, x)
        with pytest.raises(ValueError, match="int32"):
            compute(product, Accumulate("int32"))


def test_sums_of_what_is_not_finite_are_nan():
    for values in ([1.0, math.inf], [math.nan, 2.0]):
        x = torch.tensor([values])
        assert kernel.integers_of(x) is None
        product = LayerProduct(Product.FORWARD, MatmulGeometry(1, len(values), 1), x, x)
        assert compute(product, Accumulate("int32")).isnan().all()


def test_a_chain_that_wraps_is_found_behind_the_kernel():
    full = torch.full((1, 3), 2.0**15 - 1)
    product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 3, 1), full, full)
    with pytest.warns(ChainOverflowWarning, match="32 bits"):
        found = compute(product, Accumulate("int32"))
    assert found.item() == pytest.approx(3 * (2**15 - 1) ** 2 - 2**32, rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute(product, Accumulate("int32", 2))


def test_a_product_of_zeros():
    x, w = torch.zeros(2, 3), torch.ones(4, 3)
    product = LayerProduct(Product.FORWARD, MatmulGeometry(2, 3, 4), x, w)
    assert torch.equal(compute(product, Accumulate("int32")), torch.zeros(2, 4))
