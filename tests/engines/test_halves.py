"""Kernels that sum up halves, on a CPU that multiplies them or emulated on this one."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from some_kernels import built
from test_native_products import convolutions, matmuls, operands

import elision
from elision.engines import Hint, NativeEngine
from elision.engines.native import library
from elision.methods import RigL, Swat
from elision.native import builder
from elision.products import Conv2dGeometry, LayerProduct, Product
from elision.workloads.models.resnet import resnet8

#: Those of sparse layers, and what a network has between them.
KERNELS = (
    *("gather_conv", "layout", "masked_grad", "max_pool", "norm", "operand_grad"),
    *("places", "pool", "rows_grad", "sparse_gradient", "threshold", "weights"),
)


@pytest.fixture(scope="module")
def kernels():
    try:
        if not builder.variant().startswith("avx512"):
            pytest.skip("halves are emulated with AVX-512 only")
        return built(builder.variant(), KERNELS, "-O1", "-DELISION_EMULATE_HALF")
    except builder.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def halves(monkeypatch, kernels):
    monkeypatch.setattr(library, "load", lambda: kernels)
    assert library.multiplies_halves()


WAYS = [
    (Product.FORWARD, "weight"),
    (Product.INPUT_GRAD, "weight"),
    (Product.WEIGHT_GRAD, None),
]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    geometry=st.one_of(convolutions(), matmuls),
    way=st.sampled_from(WAYS),
    density=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    seed=st.integers(0, 99),
)
def test_sums_of_small_integers_are_exact(geometry, way, density, seed):
    # At most 216 products of at most 9 each are summed up in halves: below 2048.
    kind, sparse = way
    values = [
        v.mul(2).round().clamp(-3, 3)
        for v in operands(kind, geometry, sparse, density, seed)
    ]
    expected = LayerProduct(kind, geometry, *values).compute().half()
    how = {"sparse": sparse}
    if kind is Product.WEIGHT_GRAD:
        how = {"wanted": torch.rand(geometry.shape_of("weight")) < density}
        expected = expected * how["wanted"]
    found = NativeEngine().compute(
        LayerProduct(kind, geometry, *(v.half() for v in values)), Hint(**how)
    )
    assert found.dtype == torch.float16
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("kind", "sparse"), WAYS)
def test_the_error_is_that_of_halves_summed_up_in_short_runs(kind, sparse):
    geometry = Conv2dGeometry(32, 96, 8, 8, 80, 3, 1, 1, 1, 1)
    values = [v.half() for v in operands(kind, geometry, sparse, 0.1, 0)]
    how = {"sparse": sparse}
    if kind is Product.WEIGHT_GRAD:
        how = {"wanted": torch.ones(geometry.shape_of("weight"))}
    exact = LayerProduct(kind, geometry, *(v.double() for v in values)).compute()
    found = NativeEngine()
    blocked = found.compute(LayerProduct(kind, geometry, *values), Hint(**how)).double()
    error = ((blocked - exact).norm() / exact.norm()).item()
    # Rounding the result alone to half gives about 2e-4; one run of all 864 products
    # would give about 1e-2.
    assert 2.5e-4 < error < 2e-3


def test_halves_are_refused_where_there_are_none(monkeypatch):
    geometry = Conv2dGeometry(1, 1, 1, 1, 1, 1, 1, 0, 1, 1)
    assert library.Weights(geometry, halves=True).halves
    monkeypatch.setattr(library, "multiplies_halves", lambda: False)
    with pytest.raises(ValueError, match="half precision"):
        library.Weights(geometry, halves=True)


@pytest.mark.parametrize(
    "recipe", [Swat(sparsity=0.7), RigL(sparsity=0.7, every=2, until=9)]
)
def test_a_network_under_autocast_trains_in_halves(monkeypatch, recipe):
    asked = []
    made = library.Weights.__init__

    def spy(self, geometry, *, halves=False):
        asked.append(halves)
        made(self, geometry, halves=halves)

    monkeypatch.setattr(library.Weights, "__init__", spy)
    x = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    losses = []
    for dtype in (None, torch.float16):
        torch.manual_seed(0)
        model = elision.elide(
            resnet8(in_channels=3, classes=4, width=8), recipe, engine="native"
        )
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        elision.topology.attach(model, optimizer)
        scaler = torch.amp.GradScaler(
            "cpu", init_scale=1024.0, enabled=dtype is not None
        )
        seen = []
        for _ in range(5):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(x), torch.arange(20) % 4)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            seen.append(loss.item())
        losses.append(seen)
        assert set(asked) == {dtype is not None}
        asked.clear()
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    assert losses[1][-1] < losses[1][0]
