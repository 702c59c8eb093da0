"""What every format must be: nearest, idempotent, monotone, odd, right on average."""

import math
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from number_formats import codes_of, probes, same
from torch import Tensor

import elision
from elision.formats import (
    FORMATS,
    Affine,
    Coded,
    Format,
    Rounding,
    Scaled,
    format_named,
)
from elision.formats.affine import Range
from elision.formats.base import uniform
from elision.formats.integer import Integer
from elision.formats.scales import Mean, Power, TwoLevel
from elision.formats.threshold import Thresholded

#: One of those that differ in a width alone.
NAMES = [
    n
    for n in FORMATS
    if not n.startswith(("int", "msfp")) or n in ("int2", "int5", "int8", "msfp12")
]
MORE = [
    "e5m3",
    "e4m0:specials=finite",
    "int4:over=channel",
    "mxfp4:block=5",
    "uint4:block=9",
]
ALL: list[Format] = [*(FORMATS[n] for n in NAMES), *map(format_named, MORE)]
CODED = [f for f in ALL if isinstance(f, Coded)]
SCALED = [f for f in ALL if isinstance(f, Scaled)]
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "zero", "stochastic")

#: Numbers of float32 that a scale of any format can hold.
numbers = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
tensors = st.lists(numbers, min_size=1, max_size=40).map(torch.tensor)


def by_name(format: Format) -> str:
    return format.name


def grid(format: Scaled, x: Tensor) -> Tensor:
    """All values that each element could have become, ``(*x.shape, codes)``."""
    stored = format.fit(x)
    codes = torch.arange(2**format.bits)
    scale = format.grouping.spread(format.rule.scale(stored), x.shape, -1)[..., None]
    values = format.element.decode(codes)
    if isinstance(format, Affine):
        zero = format.grouping.spread(stored[1], x.shape, -1)[..., None]
        return (codes - zero) * scale
    if isinstance(format.element, Integer):
        values = values[values >= format.element.least * 2.0**-format.element.point]
    return values[values.isfinite()] * scale


@pytest.mark.parametrize("format", [f for f in CODED if f.bits <= 8], ids=by_name)
def test_the_nearest_of_all_codes(format: Coded) -> None:
    x = probes(format)
    x = x[x.isfinite() & (x.abs() <= format.largest)].double()
    values = format.decode(codes_of(format))
    values = values[values.isfinite()]
    error = (format.round(x) - x).abs()
    assert torch.equal(error, (values - x[:, None]).abs().amin(1))


@pytest.mark.parametrize("format", [f for f in SCALED if f.bits <= 8], ids=by_name)
@settings(deadline=None, max_examples=10)
@given(x=tensors)
def test_the_nearest_of_all_codes_of_a_scale(format: Scaled, x: Tensor) -> None:
    if isinstance(format, Thresholded):
        return  # the threshold decides, not the distance
    x = x.double()
    if format.grouping.over == "channel":
        x = x[None]
    values = grid(format, x)
    error = (format.round(x) - x).abs()
    least = (values - x[..., None]).abs().amin(-1)
    assert bool((error <= least + 1e-12 * x.abs()).all())


@pytest.mark.parametrize("format", ALL, ids=by_name)
@settings(deadline=None, max_examples=10)
@given(x=tensors)
def test_idempotent_monotone_odd(format: Format, x: Tensor) -> None:
    scaled = isinstance(format, Scaled)
    # Towards zero, the quotient of a free scale may fall just short of its number.
    powers = scaled and isinstance(format.rule, Power)
    for rounding in ("nearest", "zero"):
        found = format.round(x, rounding)
        again = format.round(found, rounding)
        if scaled and isinstance(format.rule, TwoLevel):
            pass  # the second scale follows from the first's rounding
        elif scaled and isinstance(format.rule, Range) and rounding == "nearest":
            # Where both ends are half-way between two codes, the codes span one step
            # less, and the second step is a smaller one: all stay within a step.
            reach = x.nan_to_num(0, 0, 0).abs().double()
            step = 2 * float(reach.amax() if len(x) else 0) / (2**format.bits - 1)
            change = (again - found).nan_to_num(0, 0, 0).abs()
            assert bool((change <= step * 1.000001 + 1e-37).all())
        elif scaled and (powers or rounding == "nearest"):
            # A float32 scale of rounded values may differ in its last place.
            torch.testing.assert_close(again, found, rtol=1e-6, atol=1e-37)
        elif not scaled:
            assert same(again, found)
        if not scaled or format.grouping.over == "tensor":
            order = x.argsort()
            assert bool((found[order].diff() >= 0).all() or not found.isfinite().all())
        asymmetric = format.name.startswith("dfp")  # has one number more below zero
        if not (scaled and isinstance(format.rule, Range)) and not asymmetric:
            nonzero = x != 0
            mirrored = -format.round(-x, rounding)
            # No sign of zero, which not all formats have; infinity and NaN as they are.
            assert torch.equal(
                mirrored[nonzero].nan_to_num(1.5), found[nonzero].nan_to_num(1.5)
            )


@pytest.mark.parametrize("format", ALL, ids=by_name)
@settings(deadline=None, max_examples=6)
@given(x=tensors, seed=st.integers(-5, 2**63))
def test_stochastic_rounding_goes_to_a_neighbour(
    format: Format, x: Tensor, seed: int
) -> None:
    found = format.round(x, "stochastic", seed)
    assert same(format.round(x, "stochastic", seed), found)
    if isinstance(format, Scaled) and isinstance(format.rule, TwoLevel | Mean | Range):
        return
    if isinstance(format, Scaled):
        # What is on the grid stays: scales of the second are those of the first.
        nearest = format.round(x)
        again = format.round(nearest, "stochastic", seed)
        torch.testing.assert_close(again, nearest, rtol=1e-5, atol=1e-37)
    below = format.round(x, "zero").abs().double()
    number = found.isfinite()
    assert bool((found.double().abs() >= below * (1 - 1e-6))[number].all())


@pytest.mark.parametrize("format", ALL, ids=by_name)
def test_the_mean_of_stochastic_rounding_is_the_value(format: Format) -> None:
    if isinstance(format, Scaled) and isinstance(format.rule, Mean):
        pytest.skip("most values lie beyond the largest of such a format")
    # Two thirds between neighbours, under a scale that one value in each group fixes.
    anchor = 1.75 if isinstance(format, Scaled) else 1.0
    x = torch.full((60_000,), anchor)
    step = 0.0
    lows = format.round(torch.tensor([anchor, 0.6], dtype=torch.float64), "zero")
    low = float(lows[1])
    stochastic = format.round(
        torch.tensor([anchor, *[0.6] * 2000], dtype=torch.float64), "stochastic", 5
    )[1:]
    high = float(stochastic.max())
    step = high - low
    value = 0.6 if step == 0 else low + 2 / 3 * step
    group = format.grouping.block if isinstance(format, Scaled) else 0
    x = torch.full((60_000,), value)
    anchored = torch.arange(x.numel()) % (group or x.numel()) == 0
    x[anchored] = anchor
    found = format.round(x, "stochastic", seed=11, axis=0)
    if isinstance(format, Scaled) and format.grouping.over == "channel":
        row = torch.stack([x, x])
        found = format.round(row, "stochastic", seed=11, axis=0)[0]
    mean = found[~anchored].double().mean()
    spread = max(step, 1e-12) / 2 / math.sqrt(x.numel())
    assert abs(mean - x[1].double()) < 5 * spread + 2e-7


@pytest.mark.parametrize("format", ALL, ids=by_name)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_neither_threads_nor_layout_matter(format: Format, rounding: Rounding) -> None:
    x = torch.randn(6, 40)
    found = format.round(x, rounding, seed=3, axis=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert torch.equal(format.round(x, rounding, seed=3, axis=1), found)
    torch.set_num_threads(threads)
    column = x.t().contiguous().t()
    assert not column.is_contiguous()
    assert torch.equal(format.round(column, rounding, seed=3, axis=1), found)
    assert torch.equal(
        elision.formats.round(x, format.name, rounding, 3, axis=1), found
    )
    images = x.view(2, 3, 8, 5).to(memory_format=torch.channels_last)
    expected = format.round(images.contiguous(), rounding, seed=3, axis=1)
    assert torch.equal(format.round(images, rounding, seed=3, axis=1), expected)


def test_rounding_in_pieces_of_whole_groups_is_rounding_at_once() -> None:
    x = torch.randn(8, 64)
    for name in ("mxfp8", "mxint8", "msfp12", "int8-group", "fp8-e4m3", "fp6-e3m2"):
        whole = FORMATS[name].round(x)
        pieces = torch.cat([FORMATS[name].round(part) for part in x.split(3)])
        assert torch.equal(pieces, whole), name


def test_the_random_numbers_are_a_hash_of_seed_and_index() -> None:
    index = torch.arange(1 << 16)
    for seed in (0, 1, -1, 2**40):
        numbers = uniform(index, seed)
        assert torch.equal(numbers, (numbers * 2**24).round() / 2**24)
        assert abs(numbers.mean() - 0.5) < 5 / math.sqrt(12 * len(index))
        assert torch.equal(uniform(index[100:], seed), numbers[100:])
        counts = torch.histc(numbers.float(), 64, 0, 1)
        expected = len(index) / 64
        # Chi-squared of 63 degrees of freedom: mean 63, deviation 11.2.
        assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * 11.3
    first, second = uniform(index, 1) - 0.5, uniform(index, 2) - 0.5
    assert abs((first * second).mean() * 12) < 5 / math.sqrt(len(index))


def test_the_distance_to_a_value_below_the_resolution_is_never_lost() -> None:
    # A number that the format has is never moved, whatever is drawn.
    for format in CODED:
        values = format.decode(codes_of(format)) if format.bits <= 16 else None
        if values is None:
            continue
        values = values[values.isfinite()].repeat(3)
        found = cast(Coded, format).round(values, "stochastic", seed=1)
        assert torch.equal(found, values), format.name
