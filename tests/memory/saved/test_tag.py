"""Content tags: one byte more or less is another tag."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.memory.saved.layout import flat
from elision.memory.saved.tag import _words, content_tag, mixed

DTYPES = [torch.bool, torch.uint8, torch.bfloat16, torch.float16, torch.float32]
DTYPES += [torch.int64, torch.float64, torch.complex64, torch.complex128]


def drawn(dtype: torch.dtype, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 256, (count * dtype.itemsize,), generator=generator)
    if dtype is torch.bool:
        numbers %= 2
    return numbers.to(torch.uint8).view(dtype)


@settings(max_examples=80, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    count=st.integers(0, 70),
    seed=st.integers(0, 99),
    where=st.integers(0, 10**6),
)
def test_the_kernel_and_plain_torch_agree_and_notice_every_change(
    dtype: torch.dtype, count: int, seed: int, where: int
) -> None:
    x = drawn(dtype, count, seed)
    tag = content_tag(x)
    assert tag == mixed(_words(x)) == content_tag(x.clone())
    if count:
        other = x.clone()
        other.view(torch.uint8)[where % (count * dtype.itemsize)] ^= 1
        assert content_tag(other) != tag


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.flip(0),
        lambda x: x.roll(1),
        lambda x: -x,
        lambda x: x[torch.randperm(len(x))],
        lambda x: torch.cat([x[1:2], x[:1], x[2:]]),
        torch.zeros_like,
    ],
)
def test_an_order_is_content(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.randn(1000)
    assert content_tag(change(x).contiguous()) != content_tag(x)


def test_memory_order_counts() -> None:
    x = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert content_tag(x) == content_tag(flat(x).clone())
    assert content_tag(x) != content_tag(x.contiguous())
