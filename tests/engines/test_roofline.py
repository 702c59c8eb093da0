"""The roofline: its rule in closed form, what is measured within the possible."""

import pytest
import torch

from elision.engines.native import library
from elision.engines.roofline import Ceilings, measured_ceilings, roof_of
from elision.products import Conv2dGeometry, MatmulGeometry

HERE = Ceilings(
    peak_gflops=128.0, bandwidth_gbs=16.0, latency_ns=80.0, call_us=2.0, threads=1
)


@pytest.mark.parametrize(
    ("channels", "filters", "limit"),
    [(64, 64, 16.0), (64, 256, 25.6), (512, 512, 128.0)],
)
def test_a_1x1_convolution_is_a_matrix_product(channels, filters, limit):
    # C·K / (2·(C + K)) operations per byte as pixels grow: not bandwidth-bound by nature.
    layer = Conv2dGeometry(64, channels, 56, 56, filters, 1)
    roof = roof_of(layer, HERE)
    assert roof.intensity == pytest.approx(limit, rel=0.01)
    assert roof.intensity < limit
    assert roof.bound == "compute"


def test_the_rule():
    narrow = roof_of(MatmulGeometry(4, 1000, 1000), HERE)
    words = 4 * 1000 + 1000 * 1000 + 4 * 1000
    assert narrow.intensity == pytest.approx(2 * 4e6 / (4 * words))
    assert narrow.bound == "bandwidth"
    assert narrow.attainable_gflops == pytest.approx(16 * narrow.intensity)
    assert narrow.seconds == pytest.approx(4 * words / 16e9)
    assert narrow.share(narrow.attainable_gflops) == 1
    halves = roof_of(MatmulGeometry(4, 1000, 1000), HERE, word_bytes=2)
    assert halves.intensity == 2 * narrow.intensity
    square = roof_of(MatmulGeometry(600, 600, 600), HERE)
    assert (square.bound, square.attainable_gflops) == ("compute", 128)
    # 4,096 operations at 128 GFLOP/s are 32 ns, an empty call 2 µs.
    assert roof_of(MatmulGeometry(8, 16, 16), HERE).bound == "latency"
    assert (HERE.balance, HERE.lines_in_flight) == (8, 20)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"roof_of\(word_bytes=0\)"):
        roof_of(MatmulGeometry(1, 1, 1), HERE, word_bytes=0)
    with pytest.raises(ValueError, match=r"measured_ceilings\(rounds=0\)"):
        measured_ceilings(rounds=0)


@pytest.mark.skipif(library.unavailable() is not None, reason="no native kernels")
def test_no_product_is_faster_than_the_peak():
    found = measured_ceilings(rounds=2)
    side = 256
    a, b = torch.randn(side, side), torch.randn(side, side)
    from elision.common.timing import fastest

    seconds = fastest({"product": lambda: a @ b}, 5)["product"]
    # Other load may slow the one or the other: only what no clock can give is refused.
    assert 2 * side**3 / seconds / 1e9 < 2 * found.peak_gflops
    assert found.latency_ns > 0
    assert found.call_us > 0
    assert found.threads == torch.get_num_threads()
    assert found.to_dict()["balance"] == found.balance


def test_without_kernels_it_says_why(monkeypatch):
    from elision.native import shared_object

    monkeypatch.setattr(shared_object, "unavailable", lambda: "no compiler")
    with pytest.raises(RuntimeError, match="no compiler"):
        measured_ceilings()
