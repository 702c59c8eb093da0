"""Every engine against the oracle: one table of properties, all engines."""

import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elision.engines import Hint, NativeEngine, TorchEngine
from elision.engines.auto import density_level
from elision.engines.native import library
from elision.products import (
    Conv1dGeometry,
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose1dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
    TransposedConvolution,
)

WAYS = [
    (Product.FORWARD, "weight"),
    (Product.INPUT_GRAD, "weight"),
    (Product.INPUT_GRAD, "grad_output"),
    (Product.WEIGHT_GRAD, "input"),
    (Product.WEIGHT_GRAD, "grad_output"),
]

pytestmark = pytest.mark.skipif(
    library.unavailable() is not None, reason=str(library.unavailable())
)


@st.composite
def convolutions(draw):
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [
        max(draw(st.integers(1, 21)), r - 2 * p)
        for r, p in zip(reach, padding, strict=True)
    ]
    return Conv2dGeometry(
        draw(st.integers(1, 35)),
        draw(st.integers(1, 40)),
        *size,
        draw(st.integers(1, 40)),
        kernel,
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding,
        dilation,
        1,
    )


@st.composite
def others(draw):
    """Layers over a line, and transposed ones."""
    conv = draw(convolutions())
    height_1 = Conv1dGeometry(
        conv.batch,
        conv.in_channels,
        conv.width,
        conv.out_channels,
        conv.kernel[1],
        conv.stride[1],
        conv.padding[1],
        conv.dilation[1],
    )
    kinds = (
        lambda: height_1,
        lambda: ConvTranspose1dGeometry(height_1),
        lambda: ConvTranspose2dGeometry(conv),
        lambda: ConvTranspose2dGeometry.of((2, 66, 4, 5), (66, 33, 3, 2), 2, groups=2),
    )
    return draw(st.sampled_from(kinds))()


matmuls = st.builds(
    MatmulGeometry, st.integers(1, 70), st.integers(1, 150), st.integers(1, 300)
)


def operands(kind, geometry, sparse, density, seed):
    generator = torch.Generator().manual_seed(seed)
    values = []
    for name in kind.operands:
        value = torch.randn(geometry.shape_of(name), generator=generator)
        if name == sparse:
            value *= torch.rand(value.shape, generator=generator) < density
        values.append(value)
    return values


def assert_close(found, expected, terms):
    """Equal up to float32 rounding of sums of that many products of normal values."""
    scale = expected.abs().max().item() + 1.0
    assert found.shape == expected.shape
    error = (found - expected).abs().max().item()
    assert error <= 1e-6 * scale * max(4.0, terms**0.5), (error, scale)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    geometry=st.one_of(convolutions(), matmuls, others()),
    way=st.sampled_from(WAYS),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_products_equal_the_oracle(geometry, way, density, seed):
    kind, sparse = way
    values = operands(kind, geometry, sparse, density, seed)
    expected = LayerProduct(kind, geometry, *values).compute()
    terms = geometry.dense_macs / max(1, expected.numel())
    for engine in (TorchEngine(), NativeEngine()):
        # The transposed one's is a forward product of a sparse input.
        is_torchs = (
            isinstance(geometry, TransposedConvolution)
            and way == (Product.INPUT_GRAD, "grad_output")
            and isinstance(engine, NativeEngine)
        )
        known = engine.supports(LayerProduct(kind, geometry), Hint(sparse))
        assert known is not is_torchs
        assert_close(
            engine.compute(LayerProduct(kind, geometry, *values), Hint(sparse)),
            expected,
            terms,
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "geometry",
    [
        MatmulGeometry(40, 48, 32, batch=3),
        ConvTranspose3dGeometry.of((2, 40, 2, 5, 5), (40, 48, 1, 3, 3), 2),
        Conv3dGeometry(2, 40, 4, 5, 5, 48, 3, padding=1),
    ],
)
def test_layers_that_are_no_plain_2d_convolution_are_torchs(
    geometry: Geometry, way: tuple[Product, str]
) -> None:
    kind, sparse = way
    first, second = operands(kind, geometry, sparse, 0.1, 0)
    product = LayerProduct(kind, geometry, first, second)
    expected = product.compute()
    native = NativeEngine()
    assert not native.supports(product, Hint(sparse))
    assert isinstance(native.choose(product, Hint(sparse)), TorchEngine)
    assert torch.equal(native.compute(product, Hint(sparse)), expected)
    if kind is Product.WEIGHT_GRAD:
        wanted = torch.ones(geometry.shape_of("weight"))
        assert torch.equal(native.compute(product, Hint(wanted=wanted)), expected)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    geometry=st.one_of(convolutions(), matmuls, others()),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_masked_weight_gradient_is_the_dense_one_at_the_mask(geometry, density, seed):
    kind = Product.WEIGHT_GRAD
    values = operands(kind, geometry, None, 1.0, seed)
    wanted = torch.rand(geometry.shape_of("weight")) < density
    expected = LayerProduct(kind, geometry, *values).compute() * wanted
    terms = geometry.dense_macs / wanted.numel()
    for engine in (TorchEngine(), NativeEngine()):
        assert_close(
            engine.compute(LayerProduct(kind, geometry, *values), Hint(wanted=wanted)),
            expected,
            terms,
        )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kind", "sparse"), WAYS)
def test_planes_smaller_than_the_stride(kind, sparse, stride):
    # Some taps meet nothing but padding, and some pixels meet no tap.
    geometry = Conv2dGeometry(2, 3, 4, 1, 5, (4, 2), (1, stride), (0, 3), (1, 1), 1)
    values = operands(kind, geometry, sparse, 0.7, 0)
    expected = LayerProduct(kind, geometry, *values).compute()
    found = NativeEngine().compute(LayerProduct(kind, geometry, *values), Hint(sparse))
    assert_close(found, expected, geometry.dense_macs / expected.numel())


@pytest.mark.parametrize("side", [56, 224])
def test_wide_planes(side):
    geometry = Conv2dGeometry(2, 3, side, side, 5, 3, 2, 1, 1, 1)
    for kind, sparse in WAYS:
        values = operands(kind, geometry, sparse, 0.1, 0)
        expected = LayerProduct(kind, geometry, *values).compute()
        found = NativeEngine().compute(
            LayerProduct(kind, geometry, *values), Hint(sparse)
        )
        assert_close(found, expected, geometry.dense_macs / expected.numel())


@pytest.mark.parametrize("sparse", ["input", "grad_output"])
@pytest.mark.parametrize("sizes", [(300, 520, 130), (129, 17, 700), (128, 16, 128)])
def test_gradients_of_rows(sparse, sizes):
    """Several chunks of tokens, several groups and cuts of columns, rows apart."""
    geometry = MatmulGeometry(*sizes)
    grad, input = operands(Product.WEIGHT_GRAD, geometry, sparse, 0.1, 5)
    expected = grad.T @ input
    padded = torch.cat([grad, grad], 1)[:, : grad.shape[1]]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(library.rows_weight_grad(input, padded, sparse=sparse))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    assert_close(found[0], expected, sizes[0])
    for operand in (grad, input):
        at = operand.nonzero()[-1]
        for value in (torch.nan, torch.inf):
            kept, operand[tuple(at)] = operand[tuple(at)].clone(), value
            assert library.rows_weight_grad(input, grad, sparse=sparse) is None
            operand[tuple(at)] = kept


@pytest.mark.parametrize(("kind", "sparse"), WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_spreads_as_in_the_dense_product(kind, sparse, value, which):
    geometry = Conv2dGeometry(3, 4, 6, 5, 7, 3, 1, 1, 1, 1)
    values = operands(kind, geometry, sparse, 0.3, 1)
    values[which].view(-1)[17] = value
    expected = LayerProduct(kind, geometry, *values).compute()
    found = NativeEngine().compute(LayerProduct(kind, geometry, *values), Hint(sparse))
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.isinf(), expected.isinf())


def test_operands_of_any_strides_and_alignment():
    geometry = Conv2dGeometry(5, 6, 7, 8, 9, 3, 1, 1, 1, 1)
    for kind, sparse in WAYS:
        values = operands(kind, geometry, sparse, 0.3, 2)
        expected = LayerProduct(kind, geometry, *values).compute()
        shifted = []
        for value in values:
            room = torch.empty(value.numel() + 1)[1:]  # 4 bytes off any alignment
            shifted.append(room.view(value.shape).copy_(value))
        last = [v.contiguous(memory_format=torch.channels_last) for v in values]
        strided = [v.repeat_interleave(2, -1)[..., ::2] for v in values]
        for variant in (shifted, last, strided):
            found = NativeEngine().compute(
                LayerProduct(kind, geometry, *variant), Hint(sparse)
            )
            assert_close(found, expected, 60)


@pytest.mark.parametrize(("kind", "sparse"), WAYS)
def test_groups_of_some_width_are_computed_one_by_one(monkeypatch, kind, sparse):
    geometry = Conv2dGeometry(9, 64, 7, 6, 96, (3, 2), 2, 1, 1, 2)
    values = operands(kind, geometry, sparse, 0.2, 5)
    expected = LayerProduct(kind, geometry, *values).compute()
    engine = NativeEngine()
    monkeypatch.setattr(engine._dense, "compute", None)
    found = engine.compute(LayerProduct(kind, geometry, *values), Hint(sparse))
    assert_close(found, expected, 300)
    if kind is Product.WEIGHT_GRAD:
        mask = torch.rand(geometry.shape_of("weight")) < 0.3
        found = engine.compute(LayerProduct(kind, geometry, *values), Hint(wanted=mask))
        assert_close(found, expected * mask, 300)
        assert not found[~mask].any()
    monkeypatch.undo()
    values[0][0, 0, 0, 0] = torch.inf
    found = engine.compute(LayerProduct(kind, geometry, *values), Hint(sparse))
    expected = LayerProduct(kind, geometry, *values).compute()
    assert torch.equal(found.isfinite(), expected.isfinite())


def test_other_dtypes_and_narrow_groups_go_to_torch():
    kind = Product.FORWARD
    grouped = Conv2dGeometry(2, 4, 5, 5, 4, 3, 1, 1, 1, 2)
    plain = Conv2dGeometry(2, 4, 5, 5, 4, 3, 1, 1, 1, 1)
    engine = NativeEngine()
    assert not engine.supports(LayerProduct(kind, grouped), Hint("weight"))
    for geometry, dtype in [(grouped, torch.float32), (plain, torch.float64)]:
        values = [v.to(dtype) for v in operands(kind, geometry, "weight", 0.3, 3)]
        found = engine.compute(LayerProduct(kind, geometry, *values), Hint("weight"))
        assert torch.equal(found, LayerProduct(kind, geometry, *values).compute())
        assert found.dtype == dtype


def test_wrong_hints_are_refused():
    geometry = MatmulGeometry(2, 3, 4)
    values = operands(Product.FORWARD, geometry, None, 1, 0)
    for engine in (TorchEngine(), NativeEngine()):
        with pytest.raises(ValueError, match="input and weight"):
            engine.compute(
                LayerProduct(Product.FORWARD, geometry, *values), Hint("grad_output")
            )
        with pytest.raises(ValueError, match="wanted="):
            engine.compute(
                LayerProduct(Product.FORWARD, geometry, *values), Hint(wanted=values[1])
            )


def test_results_do_not_depend_on_the_threads():
    geometry = Conv2dGeometry(20, 40, 11, 10, 70, 3, 1, 1, 1, 1)
    mask = torch.rand(geometry.shape_of("weight")) < 0.2
    asked = [(kind, {"sparse": sparse}) for kind, sparse in WAYS]
    before = torch.get_num_threads()
    for kind, how in [*asked, (Product.WEIGHT_GRAD, {"wanted": mask})]:
        values = operands(kind, geometry, how.get("sparse"), 0.2, 4)
        found = []
        try:
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                found.append(
                    NativeEngine().compute(
                        LayerProduct(kind, geometry, *values), Hint(**how)
                    )
                )
                assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])


def test_products_in_many_threads_at_once():
    geometry = Conv2dGeometry(17, 8, 9, 9, 12, 3, 1, 1, 1, 1)
    wrong = []

    def work(seed):
        for kind, sparse in WAYS * 3:
            values = operands(kind, geometry, sparse, 0.2, seed)
            expected = LayerProduct(kind, geometry, *values).compute()
            found = NativeEngine().compute(
                LayerProduct(kind, geometry, *values), Hint(sparse)
            )
            if not torch.allclose(found, expected, atol=1e-3):
                wrong.append((kind, seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(
        st.integers(1, 40), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)
    )
)
def test_blocked_layout_and_back(shape):
    x = torch.randn(shape)
    blocked, finite = library.to_blocked(x)
    assert finite
    assert torch.equal(library.from_blocked(blocked, shape[0]), x)
    flat = blocked.movedim(-1, 1).flatten(0, 1)
    assert torch.equal(flat[: shape[0]], x)
    assert not flat[shape[0] :].any()


def test_threshold_keeps_the_largest():
    x = torch.from_numpy(np.random.default_rng(0).permutation(10_000) + 1.0).float()
    x[::2] *= -1
    assert int((x.abs() > library.threshold(x, 0.1)).sum()) == 1000
    assert int((x.abs() > library.threshold(x, 0.10001)).sum()) == 1001
    assert library.threshold(x, 1.0) < 0
    assert library.threshold(torch.zeros(50), 0.1) < 0
    sampled = library.threshold(x, 0.1, 2000)
    assert abs((x.abs() > sampled).float().mean().item() - 0.1) < 0.02


PATTERNS = {
    "normal": lambda n: torch.randn(n),
    "after a ReLU": lambda n: torch.randn(n).relu(),
    "few values": lambda n: torch.randint(-2, 3, (n,)).float(),
    "all equal": lambda n: torch.full((n,), -0.5),
    "in order": lambda n: torch.arange(n) / n,
    "heavy tail": lambda n: torch.randn(n).pow(9),
    "infinite": lambda n: torch.where(torch.rand(n) < 0.1, math.inf, torch.randn(n)),
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("count", [1, 1000, 1025, 40_000, 200_001])
def test_an_exact_threshold_is_that_of_the_sorted_tensor(pattern, count):
    torch.manual_seed(count)
    x = PATTERNS[pattern](count)
    ordered = x.abs().sort(descending=True).values
    for keep in (1e-9, 0.01, 0.1, 0.5, 0.97):
        level = ordered[max(1, math.ceil(round(keep * count, 6))) - 1]
        below = torch.nextafter(level, torch.tensor(0.0)).item()
        assert library.threshold(x, keep) == (below if level > 0 else -1.0)


def test_a_sample_sees_every_channel():
    torch.manual_seed(0)
    x = torch.randn(2, 64, 32, 32, 16) * torch.logspace(-2, 2, 64).view(-1, 1, 1, 1)
    sampled = library.threshold(x, 0.1, 16384)
    # 4 standard deviations of the quantile of 16,384 independent values.
    assert abs((x.abs() > sampled).float().mean().item() - 0.1) < 0.01
    zeros = torch.where(x.abs() > sampled, x, 0.0)
    assert density_level(zeros.view(32, 64, 32, 32)) == 0.1


def test_refresh_takes_new_values_at_the_old_places():
    geometry = Conv2dGeometry(4, 5, 6, 6, 7, 3, 2, 1, 1, 1)
    mask = (torch.rand(geometry.shape_of("weight")) < 0.3).float()
    weights = library.Weights(geometry)
    with pytest.raises(ValueError, match="follow a mask first"):
        weights.refresh(mask)
    weights.follow(mask)
    assert weights.count == int(mask.sum())
    weight = torch.randn_like(mask) * mask
    weights.refresh(weight)
    x, g = (torch.randn(geometry.shape_of(n)) for n in ("input", "grad_output"))
    y = library.from_blocked(weights.forward(library.to_blocked(x)[0]), 4)
    dx = library.from_blocked(weights.input_grad(library.to_blocked(g)[0]), 4)
    assert_close(y, LayerProduct(Product.FORWARD, geometry, x, weight).compute(), 45)
    assert_close(
        dx, LayerProduct(Product.INPUT_GRAD, geometry, g, weight).compute(), 63
    )


@pytest.mark.parametrize("kind", [Product.INPUT_GRAD, Product.WEIGHT_GRAD])
@pytest.mark.parametrize("live", [0, 3, 12])
def test_whole_channels_of_zeros_make_a_smaller_dense_product(monkeypatch, kind, live):
    geometry = Conv2dGeometry(5, 6, 7, 8, 12, 3, 2, 1, 1, 1)
    values = operands(kind, geometry, None, 1.0, 5)
    values[0][:, torch.randperm(12)[live:]] = 0
    expected = LayerProduct(kind, geometry, *values).compute()
    sizes = []
    compute = Conv2dGeometry.compute

    def spy(geometry, kind, first, second):
        sizes.append(geometry.out_channels)
        return compute(geometry, kind, first, second)

    monkeypatch.setattr(Conv2dGeometry, "compute", spy)
    found = NativeEngine().compute(
        LayerProduct(kind, geometry, *values), Hint("grad_output")
    )
    assert_close(found, expected, 200)
    assert sizes == ([live] if live == 3 else [])


@pytest.mark.parametrize(("kind", "sparse"), WAYS)
def test_bfloat16_is_computed_in_float32(monkeypatch, kind, sparse):
    geometry = Conv2dGeometry(5, 64, 7, 8, 64, 3, 1, 1, 1, 1)
    values = [v.bfloat16() for v in operands(kind, geometry, sparse, 0.3, 6)]
    engine = NativeEngine()
    monkeypatch.setattr(engine._dense, "compute", None)
    found = engine.compute(LayerProduct(kind, geometry, *values), Hint(sparse))
    wide = engine.compute(
        LayerProduct(kind, geometry, *(v.float() for v in values)), Hint(sparse)
    )
    assert torch.equal(found, wide.bfloat16())
