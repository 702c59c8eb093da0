"""A mask selects, it does not multiply: what is left out is zero, whatever it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elision.engines import Hint, NativeEngine, TorchEngine
from elision.native import shared_object
from elision.operands import (
    Cast,
    Chain,
    LearnedThreshold,
    Mask,
    Reuse,
    TopK,
    TopKChannels,
    TopKPerExample,
    TopKShare,
    TopKSlices,
    TopNofM,
    Transform,
)
from elision.products import LayerProduct, MatmulGeometry, Product

INF, NAN = torch.inf, torch.nan


def masked() -> tuple[Transform, dict[str, Tensor]]:
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:, ::2] = True
    return Mask(), {"mask": mask, "gradient_density": torch.ones(())}


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_a_mask_makes_whatever_is_outside_of_it_zero(bad: float) -> None:
    mask, state = masked()
    x = torch.full((4, 8), bad)
    x[:, ::2] = 3.0
    read = mask.apply(x, state, True)
    assert torch.equal(read, torch.where(state["mask"], 3.0, 0.0))


#: Transforms that select by magnitude.
SELECTING: dict[str, Callable[[], Transform]] = {
    "top-k": lambda: TopK(0.75),
    "top-k-share": lambda: TopKShare(0.75),
    "top-k-per-example": lambda: TopKPerExample(2),
    "top-k-channels": lambda: TopKChannels(2),
    "top-k-filters": lambda: TopKSlices(0.75, "filter"),
    "top-n-of-m": lambda: TopNofM(1, 4),
    "learned-threshold": LearnedThreshold,
    "chain": lambda: Chain((TopK(0.75), Cast("bf16"))),
}


@pytest.mark.parametrize("name", SELECTING)
def test_infinities_beyond_the_count_leave_zeros_not_nan(name: str) -> None:
    """Every value is infinite or small: the small ones left out are exact zeros."""
    transform = SELECTING[name]()
    torch.manual_seed(0)
    x = torch.rand(4, 8) / 100
    x[0, 0] = x[2, 4] = INF
    state = transform.initial_state()
    if name == "learned-threshold":
        state["threshold"] = torch.full((4,), 1.0)
    read = transform.apply(x, state, True)
    assert not read.isnan().any()
    assert read[0, 0] > 1e38
    kept = (read != 0) & x.isfinite()
    expected = x.bfloat16().float() if name == "chain" else x
    assert torch.equal(read[kept], expected[kept])


@pytest.mark.parametrize("name", SELECTING)
def test_a_nan_is_kept_and_moves_no_threshold_to_nan(name: str) -> None:
    transform = SELECTING[name]()
    torch.manual_seed(0)
    x = torch.rand(4, 8) + 0.1
    x[1, 3] = NAN
    state = transform.initial_state()
    if name == "learned-threshold":
        state["threshold"] = torch.full((4,), 0.6)
    read = transform.apply(x, state, True)
    assert read[1, 3].isnan()
    kept = int((read != 0).sum())
    assert 0 < kept < x.numel()  # a NaN that made the threshold NaN would keep all
    if name in ("top-k", "top-k-share", "chain"):
        assert kept == 8


def test_more_nans_than_places_keep_the_nans_alone() -> None:
    x = torch.rand(32) + 0.1
    x[:12] = NAN
    for like in (x, x.bfloat16(), x.double()):
        read = TopK(0.75).apply(like, {}, True)
        assert read[:12].isnan().all()
        assert not read[12:].any()


def test_a_threshold_that_is_not_finite_is_not_cached() -> None:
    transform = TopK(0.5, refresh=2)
    state = transform.initial_state()
    good = torch.arange(1.0, 9.0)
    transform.apply(good, state, True)
    transform.apply(good, state, True)
    transform.apply(torch.full((8,), INF), state, True)
    assert state["threshold"] == 5.0
    assert torch.equal(transform.apply(good, state, True) != 0, good >= 5)


@pytest.mark.parametrize("bad", [INF, NAN])
@pytest.mark.parametrize("pairing", ["random", "same_index", "batch_mean", "cyclic"])
def test_a_reused_gradient_that_is_not_finite_moves_no_state(
    pairing: str, bad: float
) -> None:
    transform = Reuse(0.5, pairing=pairing, initial_threshold=0.1)  # pyright: ignore

    def passes(with_bad: bool) -> Tensor:
        state = transform.initial_state()
        shapes = transform.state_shapes(torch.Size((4, 6)))
        state |= {n: torch.zeros(shape) for n, shape in shapes.items()}
        for i in range(4):
            g = torch.randn(4, 6, generator=torch.Generator().manual_seed(i))
            found = transform.apply(g, state, True)
            if with_bad and i == 1:
                broken = g.clone()
                broken[:, 2] = bad
                same = transform.apply(broken, state, True)
                assert torch.equal(same.nan_to_num(), broken.nan_to_num())
        return found  # pyright: ignore[reportPossiblyUnboundVariable]

    assert torch.equal(passes(True), passes(False))


def test_a_scale_is_that_of_the_finite_values() -> None:
    x = torch.tensor([1.0, -2.0, INF, 0.5])
    assert torch.equal(
        Cast("fp8-e4m3", "tensor").apply(x, {}, True),
        torch.tensor([1.0, -2.0, 2.0, 0.5]),
    )


@pytest.mark.parametrize("bad", [INF, NAN])
@pytest.mark.parametrize("engine", [TorchEngine, NativeEngine])
def test_an_unwanted_weight_gradient_is_zero_in_every_engine(
    engine: type[TorchEngine | NativeEngine], bad: float
) -> None:
    torch.manual_seed(0)
    g, x = torch.randn(8, 4), torch.randn(8, 6)
    g[:, 1] = bad
    wanted = torch.ones(4, 6)
    wanted[1] = 0
    geometry = MatmulGeometry(8, 6, 4)
    product = LayerProduct(Product.WEIGHT_GRAD, geometry, g, x)
    dw = engine().compute(product, Hint(wanted=wanted))
    expected = g.T @ x
    expected[1] = 0
    torch.testing.assert_close(dw, expected)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    columns=st.sampled_from([1, 33, 200]),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.999]),
    threshold=st.sampled_from(["exact", "sampled"]),
    special=st.sampled_from([None, 0.0, 1.0, NAN, INF]),
    seed=st.integers(0, 99),
)
def test_runs_select_each_by_itself(
    sizes: list[int],
    columns: int,
    sparsity: float,
    threshold: Any,
    special: Any,
    seed: int,
) -> None:
    shared_object.unavailable()  # builds the kernel, where it can be
    generator = torch.Generator().manual_seed(seed)
    scales = torch.randn(sum(sizes), 1, generator=generator).exp()
    x = scales * torch.randn(sum(sizes), columns, generator=generator)
    if special is not None:  # ties, or what is not finite
        x[torch.rand(x.shape, generator=generator) < 0.4] = special
    transform = TopK(sparsity, threshold, sample_size=500)
    found = transform.of_runs(x, sizes, [], True)
    alone = [transform(run, [], True) for run in x.split(sizes)]
    assert torch.equal(found.nan_to_num(7.0), torch.cat(alone).nan_to_num(7.0))
    assert torch.equal(found.isnan(), x.isnan())
