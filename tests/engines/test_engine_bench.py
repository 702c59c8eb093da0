"""The bench: its break-even rule in closed form, its rows on a small layer."""

import pytest

from elision.engines import NativeEngine
from elision.engines.bench import bench, break_even
from elision.engines.native import library
from elision.engines.roofline import Ceilings, roof_of
from elision.products import Conv2dGeometry, MatmulGeometry, Product


def test_break_even_of_a_kernel_of_constant_rate():
    # Dense 100 FLOP/s, sparse 25 useful FLOP/s: s* = 1 - 25/100, wherever measured.
    times = {s: (1 - s) / 25 for s in (0.5, 0.7, 0.8, 0.9)}
    assert break_even(times, 1 / 100) == pytest.approx(0.75)
    assert break_even(times, 1.0) == 0.0
    assert break_even(times, 1e-4) == 1.0
    assert break_even({0.9: 1.0}, 2.0) == 0.0


@pytest.mark.skipif(library.unavailable() is not None, reason="no native kernels")
def test_rows_agree_with_themselves():
    layers = {
        "conv": Conv2dGeometry(4, 6, 8, 8, 5, (3, 3), (1, 1), (1, 1), (1, 1), 1),
        "linear": MatmulGeometry(20, 30, 40),
    }
    told = []
    # A machine of 100 GFLOP/s and 10 GB/s, whose calls take no time.
    here = Ceilings(100.0, 10.0, 100.0, 0.0, threads=1)
    rows = bench(
        layers, sparsities=(0.5, 0.9), rounds=3, ceilings=here, progress=told.append
    )
    assert told == list(layers)
    assert len(rows) == 2 * 3 * 2
    for row in rows:
        operations = 2 * layers[row.layer].dense_macs / 1e9
        assert row.error < 1e-5
        assert row.ratio == pytest.approx(row.dense_seconds / row.sparse_seconds)
        assert row.dense_gflops == pytest.approx(operations / row.dense_seconds)
        useful = operations * (1 - row.sparsity) / row.sparse_seconds
        assert row.sparse_gflops == pytest.approx(useful)
        assert 0 <= row.break_even <= 1
        assert row.to_dict()["layer"] == row.layer
        roof = roof_of(layers[row.layer], here)
        assert (row.intensity, row.bound) == (roof.intensity, roof.bound)
        assert row.dense_of_roof == pytest.approx(
            row.dense_gflops / roof.attainable_gflops
        )


@pytest.mark.skipif(library.unavailable() is not None, reason="no native kernels")
def test_other_operands_and_whole_channels_may_hold_the_zeros(monkeypatch):
    layers = {"conv": Conv2dGeometry(4, 6, 8, 8, 10, (3, 3), (1, 1), (1, 1), (1, 1), 1)}
    read = []
    compute = NativeEngine.compute

    def spy(self, product, hint):
        live = (product.first != 0).flatten(2).any(2)
        read.append((product.kind, hint.sparse, live.all(0).sum().item()))
        return compute(self, product, hint)

    monkeypatch.setattr(NativeEngine, "compute", spy)
    sparse = {Product.INPUT_GRAD: "grad_output", Product.WEIGHT_GRAD: "grad_output"}
    here = Ceilings(100.0, 10.0, 100.0, 0.0, threads=1)
    rows = bench(
        layers, sparse=sparse, channels=True, sparsities=(0.7,), rounds=3, ceilings=here
    )
    assert [row.product for row in rows] == ["input_grad", "weight_grad"]
    assert all(row.error < 1e-5 for row in rows)
    assert set(read) == {(kind, "grad_output", 3) for kind in sparse}


def test_without_kernels_it_says_why(monkeypatch):
    monkeypatch.setattr(library, "unavailable", lambda: "no compiler")
    with pytest.raises(RuntimeError, match="no compiler"):
        bench({})
