"""Code of schedules beside torch."""

import numpy as np
import pytest
import torch

from elision.accelerators.spatial import LoopNest
from elision.accelerators.spatial.schedule import Recurrence, Schedule, parse, read
from elision.accelerators.spatial.schedule.code import source
from elision.native.shared_object import unavailable
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product
from elision.study import schedules
from elision.study.schedules import by_torch, compare_with_torch, operands

LAYERS = {
    "matmul": MatmulGeometry(5, 6, 7),
    "conv": Conv2dGeometry(2, 3, 9, 8, 4, kernel=(3, 2), stride=(2, 1), padding=1),
    "dilated": Conv2dGeometry(1, 3, 9, 11, 4, kernel=3, dilation=(2, 1)),
    "stride beyond the kernel": Conv2dGeometry(2, 3, 7, 7, 4, kernel=1, stride=2),
    "grouped": Conv2dGeometry(2, 4, 5, 6, 6, kernel=3, padding=1, groups=2),
}


@pytest.mark.parametrize("kind", Product, ids=lambda kind: kind.name)
@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_torch_computes_the_recurrence_of_every_product(
    layer: str, kind: Product
) -> None:
    geometry = LAYERS[layer]
    recurrence = Recurrence.of(LoopNest.of(kind, geometry))
    given = operands(recurrence, dtype=torch.float64)
    named = dict(zip(recurrence.inputs, given, strict=True))
    first, second = (named[x].reshape(geometry.shape_of(x)) for x in kind.operands)
    wanted = LayerProduct(kind, geometry, first, second).compute()
    name, call = by_torch(recurrence)
    found = call(*given).reshape(wanted.shape)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    if layer in ("conv", "dilated") and kind is Product.FORWARD:
        assert name == "conv2d"


def test_the_convolution_of_the_listing_is_torchs_conv2d() -> None:
    assert by_torch(read("conv.t2s").recurrence)[0] == "conv2d"
    # An output that stops before the last window is no conv2d, but still computed.
    short = read("conv.t2s", {"P": 5, "H": 9, "Q": 9, "W": 9, "C": 2, "K": 2})
    name, call = by_torch(short.recurrence)
    assert name == "einsum"
    image, weight = operands(short.recurrence)
    whole = torch.nn.functional.conv2d(image, weight, padding=1)
    torch.testing.assert_close(call(image, weight), whole[:, :, :5])


def test_a_recurrence_of_sums_alone_is_refused() -> None:
    text = (
        "size M = 4, L = 7\nloop i < M, j < M\ntensor a[L]\ntensor b[L]\ntensor c[L]\n"
        "c[i + j] += a[i + j] * b[i + j]\n"
    )
    with pytest.raises(ValueError, match="indexed by sums of loops"):
        by_torch(parse(text).recurrence)


def test_python_code_is_compared_with_torch() -> None:
    made = read("gemm.t2s", {"M": 7, "N": 18, "K": 130})
    row = compare_with_torch(made, "python", threads=2, calls=1).row()
    assert row["threads"] == 1
    assert float(row["error"]) < 1e-6
    assert row["by"] == "einsum"


@pytest.mark.skipif(unavailable() is not None, reason="no compiler")
def test_cpp_code_is_compared_with_torch() -> None:
    made = read("conv.t2s", {"C": 5, "K": 9, "H": 9, "W": 9, "P": 9, "Q": 9})
    found = compare_with_torch(made, "cpp", threads=2, calls=1)
    assert found.error < 1e-6
    assert found.threads == 2


def test_wrong_code_is_not_timed_but_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Schedule(LoopNest.matmul(4, 5, 6)).unroll("j")
    right = source(made, "python")
    wrong = right.replace("range(N_k)", "range(N_k - 1)").replace(
        "range(K)", "range(K - 1)"
    )
    assert wrong != right
    monkeypatch.setattr(schedules, "source", lambda *_: wrong)
    with pytest.raises(ArithmeticError, match=r"computes C\[i, j\].* wrongly: it is"):
        compare_with_torch(made, "python", calls=1)
    assert np.isfinite(schedules.TOLERANCE)
