"""Chains of integers in every variant that this CPU runs, over any shape and any code."""

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from some_kernels import built
from test_native_products import convolutions, matmuls

from elision.engines.accumulating import ChainOverflowWarning
from elision.engines.accumulating import integer_kernel as kernel
from elision.engines.accumulating import integers as oracle
from elision.engines.accumulating.compute import in_order
from elision.native import builder, shared_object
from elision.operands import Accumulate
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

#: Flags of Linux's that a variant needs, and whether it sums bytes.
VARIANTS = {
    "avx512vnni": ({"avx512dq", "avx512bw", "avx512vl", "avx512_vnni"}, True),
    "avx512": ({"avx512dq", "avx512bw", "avx512vl"}, False),
    "avx2": ({"avx2", "fma"}, False),
    "portable": (set(), False),
}


@pytest.fixture(scope="module", params=VARIANTS)
def library(request):
    """The kernels of integers alone, in one variant."""
    needed, sums_bytes = VARIANTS[request.param]
    if missing := needed - set(builder.cpu_fields().get("flags", "").split()):
        pytest.skip(f"this CPU has no {', '.join(sorted(missing))}")
    try:
        found = built(request.param, ("integer_sums", "integers", "pool"), "-O1")
    except builder.BuildError as error:
        pytest.skip(str(error))
    assert found.elision_multiplies_bytes() == sums_bytes
    return found


@pytest.fixture(autouse=True)
def loaded(monkeypatch, library):
    monkeypatch.setattr(shared_object, "load", lambda: library)


def operand(shape, codes, scale, generator):
    """Random codes, a third of them at an end of the range, times a scale."""
    low, high = codes
    values = torch.randint(low, high + 1, shape, generator=generator)
    ends = torch.tensor(codes)[torch.randint(2, shape, generator=generator)]
    at_end = torch.rand(shape, generator=generator) < 1 / 3
    values = torch.where(at_end, ends, values)
    # The largest tells the scale, where it is a part of it.
    values.view(-1)[0] = high
    return (values.double() * scale).float()


def both(product, cell):
    """What the kernel and the oracle compute, and whether the oracle warned."""
    found = []
    for way in (kernel, oracle):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ChainOverflowWarning)
            found.append((in_order(product, cell, way.sums), bool(said)))
    return found


#: Codes from and to, and a scale for each; with a power of two any codes are found.
OPERANDS = st.one_of(
    st.tuples(
        st.sampled_from(
            [(-128, 127), (-127, 127), (-8, 7), (0, 1), (0, 128), (-32768, 32767)]
        ),
        st.integers(-130, 80).map(lambda e: 2.0**e),
    ),
    st.tuples(
        st.sampled_from([(-127, 127), (-32767, 32767)]),
        st.floats(1e-6, 1e6, allow_subnormal=False),
    ),
)


@st.composite
def grouped(draw):
    v = draw(convolutions())
    groups = draw(st.integers(2, 4))
    filters = draw(st.integers(1, 12))
    channels = min(v.in_channels, 12) * groups
    return replace(
        v, groups=groups, in_channels=channels, out_channels=filters * groups
    )


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    geometry=st.one_of(convolutions(), grouped(), matmuls),
    kind=st.sampled_from(Product),
    first=OPERANDS,
    second=OPERANDS,
    chunk=st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 9, 64]),
    seed=st.integers(0, 99),
)
def test_any_product_of_any_codes(geometry, kind, first, second, chunk, seed):
    generator = torch.Generator().manual_seed(seed)
    values = [
        operand(geometry.shape_of(name), codes, scale, generator)
        for name, (codes, scale) in zip(kind.operands, (first, second), strict=True)
    ]
    product = LayerProduct(kind, geometry, values[0], values[1])
    found, expected = both(product, Accumulate("int32", chunk))
    # Where sums pass float32, infinities of both signs may meet.
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0, equal_nan=True)
    assert found[1] == expected[1]


def test_a_gradient_without_any_sum():
    # A stride of 2 passes over the one pixel between two of padding.
    geometry = Conv2dGeometry(1, 1, 1, 1, 1, kernel=1, stride=(1, 2), padding=(0, 1))
    x, w = torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 1)
    product = LayerProduct(Product.INPUT_GRAD, geometry, x, w)
    found, expected = both(product, Accumulate("int32"))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[0], torch.zeros(1, 1, 1, 1))


@pytest.mark.parametrize("terms", [1, 3, 5, 1021, 4098])
@pytest.mark.parametrize("code", [-128, 127])
def test_bytes_at_an_end_of_their_range(code, terms):
    # Eight rows and 32 columns fill a register tile; one more of each begins the next.
    full = torch.full((9, terms), float(code))
    product = LayerProduct(
        Product.FORWARD,
        MatmulGeometry(9, terms, 33),
        full,
        torch.full((33, terms), float(code)),
    )
    found, expected = both(product, Accumulate("int32"))
    assert torch.equal(found[0], expected[0])
    exact = torch.tensor(code * code * terms, dtype=torch.float32)
    assert torch.equal(found[0], exact.expand(9, 33))


@pytest.mark.parametrize(
    ("terms", "wraps"), [(2**17 - 1, False), (2**17, True)], ids=str
)
def test_a_chain_of_bytes_as_long_as_32_bits_allow(terms, wraps):
    # 2^17 products of 2^14 are 2^31; the kernel of bytes must not take them. One term
    # more is nothing, but its odd factor keeps -128 from being -1 times 128.
    full = torch.full((1, terms + 1), -128.0)
    full[0, -1] = 1.0
    product = LayerProduct(Product.FORWARD, MatmulGeometry(1, terms + 1, 1), full, full)
    found, expected = both(product, Accumulate("int32", terms))
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1] == wraps
    assert (found[0].item() < 0) == wraps


def test_codes_find_the_narrowest_integers(library):
    narrowest = torch.int8 if library.elision_multiplies_bytes() else torch.int16
    for most, least, expected in [
        (127, -128, narrowest),
        (128, 0, torch.int16),
        (129, 0, torch.int16),
        (32767, -32768, torch.int16),
    ]:
        x = torch.tensor([most, least, 1.0])
        found = kernel.integers_of(x)
        assert found is not None
        assert found[0].dtype == expected
        assert found[0].tolist() == x.tolist()
    assert kernel.integers_of(torch.tensor([32768.0, 1.0])) is None


@pytest.mark.parametrize("place", [0, 1022, 1023, 1024, 2050])
def test_one_value_off_the_grid_is_seen(place):
    x = torch.full((2051,), 127.0) / 3
    assert kernel.integers_of(x) is not None
    x[place] = 41.0
    found = kernel.integers_of(x)
    if found is not None:  # a multiple after all: the oracle says so, too
        assert torch.equal(found[0].double(), oracle.integers_of(x).integers)
    x[place] = 41.001
    assert kernel.integers_of(x) is None
    with pytest.raises(ValueError, match="int32"):
        oracle.integers_of(x)
