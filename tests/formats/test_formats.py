"""Floating-point formats, code by code, against torch's conversions."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from number_formats import codes_of, probes, same
from torch import Tensor

import elision
from elision.formats import FLOATS, Floating, fast_round
from elision.formats.base import uniform

NARROW = [f for f in FLOATS.values() if f.bits <= 16 and f.dtype]
IDS = [f.name for f in NARROW]


def torch_values(format: Floating) -> Tensor:
    """Values of all codes as torch reads them."""
    width = {8: torch.uint8, 16: torch.uint16}[format.bits]
    assert format.dtype is not None
    return codes_of(format).to(width).view(format.dtype).double()


@pytest.mark.parametrize("format", NARROW, ids=IDS)
def test_every_code_decodes_as_torch_reads_it(format: Floating) -> None:
    expected = torch_values(format)
    found = format.decode(codes_of(format))
    assert same(found, expected)
    number = ~expected.isnan()
    assert torch.equal(format.encode(found)[number], codes_of(format)[number])
    assert format.decode(format.encode(torch.tensor(math.nan))).isnan()
    assert format.dtype is not None
    assert format.largest == torch.finfo(format.dtype).max
    assert format.smallest_normal == torch.finfo(format.dtype).smallest_normal


@pytest.mark.parametrize("format", NARROW, ids=IDS)
def test_nearest_is_torchs_conversion_at_every_tie_and_beside_it(
    format: Floating,
) -> None:
    x = probes(format)
    if format.saturates:  # torch's conversion does not, below 2.13
        x = x.clamp(-format.largest, format.largest)
    assert format.dtype is not None
    expected = x.to(format.dtype).float()
    assert same(format.round(x), expected)
    assert same(elision.formats.round(x, format.name), expected)


@pytest.mark.parametrize("format", NARROW, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_fast_way_is_the_slow_one_saturating_too(
    format: Floating, dtype: torch.dtype
) -> None:
    # What lies between the largest values of two formats has no agreed answer in a
    # dtype that cannot hold it; values are compared in float32.
    x = probes(format).to(dtype).float()
    slow = format.saturating.round(x)
    assert same(fast_round(format.saturating, x), slow)
    assert slow[~slow.isnan()].abs().max() == format.largest


@pytest.mark.parametrize("format", NARROW, ids=IDS)
def test_toward_zero_is_the_next_value_down(format: Floating) -> None:
    x = probes(format)
    x = x[x.isfinite()]
    if format.specials == "fnuz":
        x = x[(x.abs() >= format.smallest) | ~x.signbit()]  # no negative zero
    values = format.decode(codes_of(format))
    values = values[values.isfinite() & ~values.signbit()].unique()
    place = torch.searchsorted(values, x.double().abs(), right=True) - 1
    expected = values[place].copysign(x.double())
    assert same(format.round(x, "zero").double(), expected)


def test_float64_is_rounded_once() -> None:
    # Just above a tie of bf16, by less than float32 can see.
    x = torch.tensor([1 + 2**-8 + 2**-40], dtype=torch.float64)
    assert x.to(torch.bfloat16).item() == 1.0
    assert elision.formats.round(x, "bf16").item() == 1 + 2**-7


def test_overflow_saturates_or_shows() -> None:
    x = torch.tensor([1e9, -1e9, math.inf])
    for name, beyond in (("fp8-e5m2", math.inf), ("fp8-e4m3", math.nan)):
        format = replace(FLOATS[name], saturates=False)
        assert same(format.round(x), torch.tensor([beyond, -beyond, beyond]))
        assert same(fast_round(format, x), format.round(x))
        top = format.largest
        assert format.saturating.round(x).tolist() == [top, -top, top]
    assert FLOATS["fp8-e5m2"].round(x[:2], "zero").tolist() == [57344.0, -57344.0]


def test_formats_without_a_sign_or_subnormals() -> None:
    flush = replace(FLOATS["fp16"], subnormals=False, dtype=None)
    low = flush.smallest
    assert low == 2.0**-14
    x = torch.tensor([0.4 * low, 0.5 * low, 0.6 * low, -0.6 * low, 1.5 * low])
    assert flush.round(x).tolist() == [0.0, 0.0, low, -low, 1.5 * low]
    unsigned = replace(FLOATS["fp8-e4m3"], signed=False, dtype=None)
    assert unsigned.bits == 7
    assert same(
        unsigned.round(torch.tensor([2.0, -2.0])), torch.tensor([2.0, math.nan])
    )
    values = unsigned.decode(torch.arange(127))
    assert torch.equal(unsigned.encode(values), torch.arange(127))


@pytest.mark.parametrize("format", NARROW, ids=IDS)
def test_stochastic_rounding_is_unbiased_and_hits_neighbours(format: Floating) -> None:
    below = format.round(torch.tensor(1.0)).item()
    above = format.decode(format.encode(torch.tensor(1.0)) + 1).item()
    x = torch.full((200_000,), 0.75 * below + 0.25 * above)
    found = format.round(x, "stochastic", seed=3)
    assert set(found.tolist()) == {below, above}
    share = (found == above).double().mean().item()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / x.numel())
    exact = torch.tensor([1.0, -2.0, 0.0])
    assert torch.equal(format.round(exact, "stochastic"), exact)


def test_stochastic_rounding_depends_on_seed_and_index_alone() -> None:
    x = torch.rand(1000)
    first = elision.formats.round(x, "fp8-e4m3", "stochastic", seed=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    again = elision.formats.round(x, "fp8-e4m3", "stochastic", seed=1)
    torch.set_num_threads(threads)
    assert torch.equal(first, again)
    reshaped = elision.formats.round(x.view(10, 100), "fp8-e4m3", "stochastic", seed=1)
    assert torch.equal(reshaped.flatten(), first)
    # Every one of 64 bits of a seed has a say.
    for seed in (2, 1 + 2**32, 1 + 2**63):
        other = elision.formats.round(x, "fp8-e4m3", "stochastic", seed=seed)
        assert (first != other).float().mean() > 0.1, seed
    numbers = uniform(torch.tensor([0, 1, 2**32, 2**32 + 1]), seed=1)
    assert len(set(numbers.tolist())) == 4


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown number format 'bf61'.*bf16"):
        elision.formats.round(torch.ones(1), "bf61")
    with pytest.raises(ValueError, match=r"rounding='up'.*'nearest' or 'zero'"):
        elision.formats.round(torch.ones(1), "bf16", "up")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["bf16", "fp8-e5m2", "dfp16", "mxfp8", "int8", "log8"])
@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (torch.arange(5), "torch.int64"),
        (torch.ones(2, dtype=torch.bool), "torch.bool"),
        (torch.ones(2, dtype=torch.complex64), "torch.complex64"),
        (torch.eye(2).to_sparse(), "torch.sparse_coo"),
        ([1.0, 2.0], "list"),
    ],
)
def test_what_no_format_holds_is_refused(name: str, x: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"real floating point, got .*{kind}$"):
        elision.formats.round(x, name)


def test_a_seed_is_an_integer_and_a_name_is_text() -> None:
    x = torch.ones(2)
    with pytest.raises(ValueError, match=r"round\(seed=1.5\): must be an integer"):
        elision.formats.round(x, "bf16", "stochastic", seed=1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"no name of a number format; give its text"):
        elision.formats.round(x, FLOATS["bf16"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["bf16", "dfp16", "mxfp4", "uint8", "ternary"])
def test_without_data_there_is_a_shape(name: str) -> None:
    found = elision.formats.round(torch.empty(2, 3, device="meta").half(), name)
    assert found.is_meta
    assert (found.shape, found.dtype) == ((2, 3), torch.float16)
