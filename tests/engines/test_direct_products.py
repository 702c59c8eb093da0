"""The batch-reduce kernel and Winograd's on it against torch, in every variant here."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from some_kernels import built

from elision.engines import DirectEngine, Hint
from elision.engines.native import direct
from elision.engines.native.direct import Post, dense_product, from_blocks, to_blocks
from elision.engines.winograd import compute, native, native_product
from elision.native import builder
from elision.products import (
    Conv1dGeometry,
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)

#: Flags of Linux's that a variant needs.
VARIANTS = {
    "avx512": {"avx512dq", "avx512bw", "avx512vl"},
    "avx2": {"avx2", "fma"},
    "portable": set(),
}

#: Extents all different, sizes that no tile divides, lists that are empty.
LAYERS = {
    "3x3": Conv2dGeometry(2, 5, 7, 9, 6, 3, 1, 1),
    "3x3, several panels": Conv2dGeometry(2, 35, 13, 9, 150, 3, 1, 1),
    "stride 2": Conv2dGeometry(2, 32, 13, 9, 96, 3, 2, 1),
    "stride 3, 5x3": Conv2dGeometry(1, 70, 11, 13, 130, (5, 3), 3, (2, 1)),
    "first layer": Conv2dGeometry(2, 3, 21, 19, 20, 7, 2, 3),
    "1x1": Conv2dGeometry(3, 20, 8, 9, 30, 1),
    "1x1, stride 2: pixels without a tap": Conv2dGeometry(3, 32, 8, 9, 80, 1, 2),
    "1x1, stride 3 of 2 rows": Conv2dGeometry(1, 4, 2, 3, 4, 1, 3),
    "deep, cut into chunks": Conv2dGeometry(1, 600, 4, 6, 70, 3, 1, 1),
    "dilation": Conv2dGeometry(1, 10, 12, 13, 14, 3, 1, 2, 2),
    "stride and dilation": Conv2dGeometry(1, 10, 12, 13, 14, 3, 2, 2, 3),
    "long rows": Conv2dGeometry(1, 8, 5, 230, 8, 3, 1, 0),
    "more padding than kernel": Conv2dGeometry(2, 24, 9, 8, 40, 3, 1, 4),
    "many short rows": Conv2dGeometry(17, 6, 3, 4, 70, 3, 1, 1),
    "groups": Conv2dGeometry(2, 12, 7, 8, 20, 3, 1, 1, 1, 4),
    "matrix of few rows": Conv2dGeometry(3, 50, 1, 1, 90, 1),
    "almost all axes of one": Conv2dGeometry(1, 1, 2, 1, 1, 1),
    "matrix": Conv2dGeometry(37, 100, 1, 1, 90, 1),
}


@pytest.fixture(scope="module", params=VARIANTS)
def library(request):
    """The direct kernels alone, in one variant."""
    variant = request.param
    missing = VARIANTS[variant] - set(builder.cpu_fields().get("flags", "").split())
    if missing:
        pytest.skip(f"this CPU has no {', '.join(sorted(missing))}")
    try:
        return built(variant, ("direct", "winograd", "pool"), "-O1")
    except builder.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def loaded(monkeypatch, library):
    monkeypatch.setattr(direct, "load", lambda: library)
    monkeypatch.setattr(native, "load", lambda: library)
    monkeypatch.setattr(direct, "unavailable", lambda: None)


def products(layer):
    generator = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn(layer.shape_of(name), generator=generator)
        for name in ("input", "weight", "grad_output")
    }
    for kind in Product:
        first, second = (values[name] for name in kind.operands)
        yield LayerProduct(kind, layer, first, second)


def agrees(found, product):
    first, second = product.first.double(), product.second.double()
    expected = LayerProduct(product.kind, product.geometry, first, second).compute()
    assert found.shape == expected.shape
    # Of sums that cancel, the error is measured by the terms.
    terms = LayerProduct(product.kind, product.geometry, first.abs(), second.abs())
    assert ((found.double() - expected).abs() <= 1e-6 * terms.compute() + 1e-30).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_all_products_are_those_of_torch(name, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for product in products(LAYERS[name]):
            agrees(DirectEngine().compute(product), product)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", LAYERS)
def test_pairs_of_bfloat16_are_summed_in_float32(name):
    for product in products(LAYERS[name]):
        first, second = product.first.bfloat16(), product.second.bfloat16()
        narrow = LayerProduct(product.kind, product.geometry, first, second)
        found = DirectEngine().compute(narrow)
        assert DirectEngine().choose(narrow).name == "direct"
        assert found.dtype == torch.bfloat16
        wide = (first.double(), second.double())
        expected = LayerProduct(product.kind, product.geometry, *wide).compute()
        terms = [value.abs() for value in wide]
        size = LayerProduct(product.kind, product.geometry, *terms).compute()
        # One rounding to 8 bits, and those of float32 sums.
        allowed = 2**-8 * expected.abs() + 1e-6 * size + 1e-30
        assert ((found.double() - expected).abs() <= allowed).all()


def test_pairs_may_begin_within_a_word():
    layer = Conv2dGeometry(1, 4, 3, 2, 6, 1)
    for product in products(layer):
        narrow = [value.bfloat16() for value in product.operands.values()]
        odd = []
        for value in narrow:
            last = value.permute(0, 2, 3, 1)
            memory = torch.empty(1 + value.numel(), dtype=torch.bfloat16)
            odd.append(memory[1:].view(last.shape).copy_(last).permute(0, 3, 1, 2))
        found, expected = (
            dense_product(product.kind, layer, *operands) for operands in (odd, narrow)
        )
        assert torch.equal(found, expected)


def test_without_the_instruction_bfloat16_is_computed_in_floats(monkeypatch, library):
    known = {n: getattr(library, f"elision_direct_{n.value}") for n in Product}
    asked = []

    def spy(kind):
        def call(shape, pairs, *rest):
            asked.append(pairs)
            return known[kind](shape, pairs, *rest)

        return call

    without = SimpleNamespace(
        elision_multiplies_pairs=lambda: 0,
        **{f"elision_direct_{kind.value}": spy(kind) for kind in Product},
    )
    monkeypatch.setattr(direct, "load", lambda: without)
    layer = LAYERS["3x3"]
    for product in products(layer):
        first, second = product.first.bfloat16(), product.second.bfloat16()
        found = dense_product(product.kind, layer, first, second)
        wide = LayerProduct(product.kind, layer, first.float(), second.float())
        torch.testing.assert_close(
            found, wide.compute().bfloat16(), rtol=1e-2, atol=1e-3
        )
    assert asked == [False] * 3


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_products_of_any_shape(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    axes = [(draw(1, 4), draw(1, 3), draw(0, 3), draw(1, 2)) for _ in range(2)]
    kernel, stride, padding, dilation = zip(*axes, strict=True)
    sizes = [max(draw(1, 15), d * (r - 1) + 1 - 2 * p) for r, _, p, d in axes]
    layer = Conv2dGeometry(
        draw(1, 20),
        draw(1, 80),
        *sizes,
        draw(1, 140),
        kernel,
        stride,
        padding,
        dilation,
    )
    for product in products(layer):
        agrees(DirectEngine().compute(product), product)


def test_pixels_that_no_tap_reaches_are_zero():
    layer = LAYERS["1x1, stride 2: pixels without a tap"]
    _, product, _ = products(layer)
    dx = DirectEngine().compute(product)
    reached = torch.zeros(layer.height, layer.width, dtype=torch.bool)
    reached[::2, ::2] = True
    assert (dx[..., ~reached] == 0).all()
    assert (dx[..., reached] != 0).all()


@pytest.mark.parametrize("sides", [(16, 16), (8, 32), (4, 8)])
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_of_channels_are_the_same_product(sides, stride):
    layer = Conv2dGeometry(2, 48, 9, 7, 96, 3, stride, 1)
    which = {"input": sides[0], "grad_output": sides[1]}
    for product in products(layer):
        blocked = [
            value if name == "weight" else to_blocks(value, which[name])
            for name, value in product.operands.items()
        ]
        found = dense_product(product.kind, layer, *blocked, blocks=sides)
        agrees(found if found.dim() == 4 else from_blocks(found), product)


def test_what_follows_is_done_at_the_last_block_alone():
    # The sums of the first blocks have other signs than the whole ones.
    for name in ("deep, cut into chunks", "groups", "3x3, several panels"):
        layer = LAYERS[name]
        product, *_ = products(layer)
        scale, shift = torch.randn(layer.out_channels), torch.randn(layer.out_channels)
        plain = product.compute()
        for post in (
            Post(shift=shift),
            Post(relu=True),
            Post(scale, shift, relu=True),
            Post(scale),
        ):
            expected = plain
            if post.scale is not None:
                expected = expected * scale[:, None, None]
            if post.shift is not None:
                expected = expected + shift[:, None, None]
            if post.relu:
                expected = expected.relu()
            found = dense_product(
                product.kind, layer, product.first, product.second, post=post
            )
            size = plain.abs().max().item()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize(
    "layer",
    [
        MatmulGeometry(70, 30, 90),
        Conv1dGeometry(2, 5, 20, 7, 3, 2, 1),
        ConvTranspose2dGeometry(Conv2dGeometry(2, 7, 9, 8, 6, 3, 2, 1)),
        Conv3dGeometry(1, 2, 4, 5, 6, 3, 3, 1, 1),
    ],
)
def test_every_kind_of_layer(layer):
    for product in products(layer):
        agrees(DirectEngine().compute(product), product)


def test_what_is_not_its_own_is_torch_s():
    layer = LAYERS["3x3"]
    forward, _, weight_grad = products(layer)
    engine = DirectEngine()
    assert engine.choose(forward) is engine
    mixed = LayerProduct(forward.kind, layer, forward.first, forward.second.bfloat16())
    assert engine.choose(mixed).name == "torch"
    doubles = LayerProduct(
        forward.kind, layer, forward.first.double(), forward.second.double()
    )
    assert engine.choose(doubles).name == "torch"
    assert engine.compute(doubles).dtype == torch.float64
    weight = forward.second.clone()
    weight[0, 0, 0, 0] = float("inf")
    infinite = LayerProduct(forward.kind, layer, forward.first, weight)
    torch.testing.assert_close(
        engine.compute(infinite), infinite.compute(), equal_nan=True
    )
    wanted = torch.zeros_like(weight)
    wanted[1] = 1
    part = engine.compute(weight_grad, Hint(wanted=wanted))
    assert (part[0] == 0).all()
    torch.testing.assert_close(part[1], weight_grad.compute()[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": (4, 2)}, r"blocks=\(4, 2\)\): 4 must divide 5 channels"),
        ({"post": Post(shift=torch.zeros(5))}, r"shape \(5,\), the layer has 6 output"),
        ({"first": torch.zeros(1, 5, 7, 9)}, r"input is \(1, 5, 7, 9\) torch.float32"),
        ({"second": torch.zeros(6, 5, 3, 3).double()}, "weight is .* torch.float64"),
        ({"kind": Product.INPUT_GRAD, "post": Post()}, "not for input_grad"),
    ],
)
def test_wrong_input_is_named(change, message):
    product, *_ = products(LAYERS["3x3"])
    given = {
        "kind": product.kind,
        "geometry": product.geometry,
        "first": product.first,
        "second": product.second,
    }
    with pytest.raises(ValueError, match=message):
        dense_product(**(given | change))
    groups = LAYERS["groups"]
    with pytest.raises(ValueError, match="not with 4 groups"):
        dense_product(
            Product.FORWARD, groups, product.first, product.second, blocks=(4, 4)
        )
    with pytest.raises(ValueError, match=r"to_blocks\(side=3\)"):
        to_blocks(product.first, 3)


WINOGRAD = {
    "3x3": Conv2dGeometry(2, 16, 7, 9, 32, 3, 1, 1),
    "no padding": Conv2dGeometry(1, 32, 13, 5, 80, 3),
    "wide padding": Conv2dGeometry(3, 48, 14, 11, 16, 3, 1, (2, 0)),
    "less than a tile": Conv2dGeometry(5, 16, 2, 3, 144, 3, 1, 1),
    "several blocks of tiles": Conv2dGeometry(2, 64, 33, 29, 16, 3, 1, 1),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("m", native.TILES)
@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_is_its_oracle(name, m, threads):
    layer = WINOGRAD[name]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for product in products(layer):
            if product.kind is Product.WEIGHT_GRAD:
                continue
            first, second = product.first.double(), product.second.double()
            exact = LayerProduct(product.kind, layer, first, second)
            expected = compute(exact, m)
            found = native_product(product, m).double()
            assert found.shape == expected.shape
            # The transforms' rounding: that of the oracle in float32 is of this size.
            assert (found - expected).norm() <= 4e-6 * expected.norm()
    finally:
        torch.set_num_threads(before)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 20)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 6)),
    batch=st.integers(1, 5),
    padding=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    m=st.sampled_from(native.TILES),
)
def test_winograd_of_any_shape(sizes, channels, batch, padding, m):
    wide = [16 * c for c in channels]
    layer = Conv2dGeometry(batch, wide[0], *sizes, wide[1], 3, 1, padding)
    forward, input_grad, _ = products(layer)
    for product in (forward, input_grad):
        expected = product.compute()
        error = (native_product(product, m) - expected).norm()
        assert error <= 1e-5 * expected.norm()


def test_winograd_with_what_follows():
    layer = WINOGRAD["no padding"]
    product, *_ = products(layer)
    scale, shift = torch.randn(layer.out_channels), torch.randn(layer.out_channels)
    found = native_product(product, 4, Post(scale, shift, relu=True))
    plain = product.compute()
    expected = (plain * scale[:, None, None] + shift[:, None, None]).relu()
    size = plain.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.parametrize(
    ("layer", "kind", "m", "reason"),
    [
        (Conv2dGeometry(1, 16, 9, 9, 16, 3, 2), Product.FORWARD, 4, r"stride \(2, 2\)"),
        (Conv2dGeometry(1, 16, 9, 9, 16, 5), Product.FORWARD, 4, r"kernel \(5, 5\)"),
        (Conv2dGeometry(1, 16, 9, 9, 24, 3), Product.FORWARD, 4, "16 to 24 channels"),
        (Conv2dGeometry(1, 16, 9, 9, 16, 3), Product.WEIGHT_GRAD, 4, "weight gradient"),
        (Conv2dGeometry(1, 16, 9, 9, 16, 3), Product.FORWARD, 6, "m=6"),
        (Conv2dGeometry(1, 16, 9, 9, 16, 3, 1, 3), Product.INPUT_GRAD, 4, "padding"),
        (MatmulGeometry(1, 2, 3), Product.FORWARD, 4, "linear"),
    ],
)
def test_winograd_says_what_it_does_not_compute(layer, kind, m, reason):
    product = next(p for p in products(layer) if p.kind is kind)
    with pytest.raises(ValueError, match=f"3x3 layers of stride.*not .*{reason}"):
        native_product(product, m)
