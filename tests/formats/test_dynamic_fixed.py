"""Products and sums of dynamic fixed point, and delayed scales, against their formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.formats import FORMATS, DynamicFixed
from elision.formats.delayed import delayed_scale, remembered

arrays = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20)


@settings(deadline=None, max_examples=60)
@given(values=arrays, bits=st.sampled_from([8, 12, 16]))
def test_its_values_are_the_formats(values: list[float], bits: int) -> None:
    x = torch.tensor(values)
    fixed = DynamicFixed.of(x, bits)
    assert torch.equal(fixed.values().float(), FORMATS[f"dfp{bits}"].round(x))
    if x.abs().max() > 1e-30:
        top = math.frexp(x.abs().max().item())[1] - 1
        assert fixed.exponent == top - (bits - 2)
        assert fixed.integers.abs().max() >= 2 ** (bits - 2)


@settings(deadline=None, max_examples=60)
@given(first=arrays, second=arrays, bits=st.sampled_from([8, 12, 16]))
def test_products_are_exact(first: list[float], second: list[float], bits: int) -> None:
    size = min(len(first), len(second))
    a = DynamicFixed.of(torch.tensor(first[:size]), bits)
    b = DynamicFixed.of(torch.tensor(second[:size]), bits)
    product = a * b
    assert product.exponent == a.exponent + b.exponent
    assert torch.equal(product.values(), a.values() * b.values())
    dot = DynamicFixed(a.integers[None], a.exponent) @ DynamicFixed(
        b.integers[:, None], b.exponent
    )
    assert dot.exponent == product.exponent
    assert dot.integers.item() == int((a.integers * b.integers).sum())


@settings(deadline=None, max_examples=60)
@given(first=arrays, second=arrays, bits=st.sampled_from([8, 12, 16]))
def test_sums_round_the_smaller_exponent_down(
    first: list[float], second: list[float], bits: int
) -> None:
    size = min(len(first), len(second))
    a = DynamicFixed.of(torch.tensor(first[:size]), bits)
    b = DynamicFixed.of(torch.tensor(second[:size]), bits)
    total = a + b
    assert total.exponent == max(a.exponent, b.exponent)
    exact = a.values() + b.values()
    error = exact - total.values()
    assert bool((error >= 0).all())
    # Less than a unit, but for the rounding of float64 in the check.
    assert bool((error <= 2.0**total.exponent).all())
    assert torch.equal((b + a).integers, total.integers)


def test_sums_by_hand() -> None:
    a = DynamicFixed(torch.tensor([100, -100]), -3)
    b = DynamicFixed(torch.tensor([7, -7]), -5)  # 1.75 and −1.75 units of a
    total = a + b
    assert (total.integers.tolist(), total.exponent) == ([101, -102], -3)
    far = DynamicFixed(torch.tensor([5, -5]), -500)
    assert (a + far).integers.tolist() == [100, -101]


@settings(deadline=None, max_examples=60)
@given(
    integers=st.lists(st.integers(-(2**40), 2**40), min_size=0, max_size=20),
    bits=st.integers(2, 32),
)
def test_narrowing_shifts_as_little_as_it_can(integers: list[int], bits: int) -> None:
    wide = DynamicFixed(torch.tensor(integers, dtype=torch.int64), 3)
    narrow = wide.narrowed(bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    shift = narrow.exponent - 3
    assert shift >= 0
    assert narrow.integers.tolist() == [i >> shift for i in integers]
    assert all(low <= i <= high for i in narrow.integers.tolist())
    if shift:
        assert any(not low <= i >> (shift - 1) <= high for i in integers)


def test_a_sum_of_products_goes_back_to_sixteen_bits() -> None:
    x, w = torch.randn(4, 300), torch.randn(300, 5)
    product = DynamicFixed.of(x, 16) @ DynamicFixed.of(w, 16)
    narrow = product.narrowed(16)
    unit = 2.0**narrow.exponent
    assert (narrow.values() - product.values()).abs().max() < unit
    assert (narrow.values() - (x.double() @ w.double())).abs().max() < unit + 0.05
    with pytest.raises(ValueError, match=r"narrowed\(bits=1\)"):
        product.narrowed(1)


def test_delayed_scales_by_hand() -> None:
    history = torch.tensor([[2.0, 0.0, math.inf, 1.0], [7.0, 0.0, 1.0, math.nan]])
    before = torch.tensor([1.0, 3.0, 5.0, 7.0])
    found = delayed_scale(history, 448.0, before)
    assert found.tolist() == [64.0, 3.0, 5.0, 7.0]
    found = delayed_scale(history, 448.0, before, margin=2, algorithm="most-recent")
    assert found.tolist() == [56.0, 3.0, 5.0, 112.0]
    tiny = delayed_scale(torch.tensor([1e-45]), 448.0, torch.tensor(1.0))
    assert tiny.item() == torch.finfo(torch.float32).max
    with pytest.raises(ValueError, match="'max' or 'most-recent'"):
        delayed_scale(history, 448.0, before, algorithm="mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="margin"):
        delayed_scale(history, 448.0, before, margin=math.nan)


def test_the_history_forgets_the_oldest() -> None:
    history = torch.zeros(3)
    for amax in (1.0, 2.0, 3.0, 4.0):
        history = remembered(history, torch.tensor(amax))
    assert history.tolist() == [4.0, 3.0, 2.0]
