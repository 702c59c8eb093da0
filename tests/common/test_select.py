"""Selecting by a mask: the bits' AND is torch's own selection."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.common.selecting import select, select_

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
OTHERS = (torch.complex64, torch.int64, torch.float8_e4m3fn)


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), max_size=3),
    st.integers(0, 2**20),
)
def test_what_is_outside_is_zero_and_the_rest_stays(
    dtype: torch.dtype, shape: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).to(dtype)
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-40]).to(
        dtype
    )
    places = torch.randint(0, 9, x.shape, generator=generator)
    x = torch.where(places < 6, special[places.clamp(max=5)], x)
    mask = torch.rand(x.shape, generator=generator) < 0.5
    expected = torch.where(mask, x, x.new_zeros(()))
    torch.testing.assert_close(
        select(x, mask), expected, rtol=0, atol=0, equal_nan=True
    )
    assert torch.equal(select(x, mask).signbit(), expected.signbit())
    y = x.clone()
    assert select_(y, mask) is y
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", OTHERS)
def test_other_dtypes(dtype: torch.dtype) -> None:
    x = torch.tensor([1, 2, 3]).to(dtype)
    mask = torch.tensor([True, False, True])
    assert select(x, mask).to(torch.complex64).tolist() == [1, 0, 3]


def test_layouts_gradients_and_transforms() -> None:
    x = torch.full((4, 6), torch.inf).t()
    mask = torch.zeros(6, 4, dtype=torch.bool)
    mask[1, 2] = True
    assert select(x, mask).isinf().sum() == 1
    assert select_(x, mask).isinf().sum() == 1
    w = torch.ones(2, 3, requires_grad=True)
    kept = torch.tensor([[True, False, True], [False, True, True]])
    select(w, kept).sum().backward()
    assert w.grad is not None
    assert torch.equal(w.grad, kept.float())
    mapped = torch.func.vmap(select)(torch.ones(2, 3), kept)
    assert torch.equal(mapped, kept.float())
