"""Formats with shared scales, each against its definition written anew in numpy."""

import math
import re

import numpy as np
import pytest
import torch
from number_formats import SPECIAL, same
from torch import Tensor

from elision import formats
from elision.formats import (
    FORMATS,
    Affine,
    Encoded,
    Format,
    Scaled,
    format_named,
    projections,
)
from elision.formats.grouping import Grouping

#: Of the fifteen widths of integers, the ends and what is in use.
LEFT_OUT = {f"int{bits}" for bits in range(2, 17)} - {"int2", "int4", "int8", "int16"}
SCALED = [
    *(f for n, f in FORMATS.items() if isinstance(f, Scaled) and n not in LEFT_OUT),
    formats.scaled("fp8-e4m3", over="channel"),
    formats.scaled("fp8-e5m2", scale="power-of-two", block=24),
]
IDS = [f.name for f in SCALED]
MX = ["mxfp8", "mxfp8-e5m2", "mxfp6", "mxfp6-e2m3", "mxfp4", "mxint8"]


def scaled(name: str) -> Scaled:
    format = format_named(name)
    assert isinstance(format, Scaled)
    return format


def draws(*shape: int, seed: int = 0) -> Tensor:
    """Values over many octaves, zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    x = x * 2.0 ** torch.randint(-12, 9, shape, generator=generator)
    return torch.where(torch.rand(*shape, generator=generator) < 0.1, 0.0, x)


@pytest.mark.parametrize("name", MX)
def test_mx_is_gfloats_block_by_block(name: str) -> None:
    gfloat = pytest.importorskip("gfloat")
    from gfloat import formats

    info = {
        "mxfp8": formats.format_info_mxfp8_e4m3,
        "mxfp8-e5m2": formats.format_info_mxfp8_e5m2,
        "mxfp6": formats.format_info_mxfp6_e3m2,
        "mxfp6-e2m3": formats.format_info_mxfp6_e2m3,
        "mxfp4": formats.format_info_mxfp4_e2m1,
        "mxint8": formats.format_info_mxint8,
    }[name]
    x = draws(8, 64)
    x[0] *= 2.0**-120  # the scale's lowest exponents
    x[1] *= 2.0**115
    x[2, :32] = 0
    scale_of = gfloat.compute_scale_amax
    rows = x.double().numpy().reshape(-1, 32)
    expected = np.stack([gfloat.quantize_block(info, row, scale_of) for row in rows])
    if name == "mxint8":
        # gfloat keeps the lowest code, which the specification lets be left out.
        scales = np.array([scale_of(info.etype.emax, row) for row in rows])[:, None]
        expected = np.maximum(expected, -127 / 64 * scales)
    found = FORMATS[name].round(x.double())
    assert np.array_equal(found.numpy().reshape(-1, 32), expected)
    assert torch.equal(FORMATS[name].round(x), found.float())


@pytest.mark.parametrize("bits", [16, 12, 8])
@pytest.mark.parametrize("rounding", ["nearest", "zero"])
def test_dfp_is_its_formula(bits: int, rounding: str) -> None:
    x = draws(1000).double()
    x[3] = -(2.0**9) * (1 - 2.0**-20)  # beyond the highest integer, not the lowest
    exponent = math.floor(math.log2(x.abs().max().item())) - (bits - 2)
    whole = np.rint if rounding == "nearest" else np.trunc
    integers = whole(x.numpy() * 2.0**-exponent)
    integers = integers.clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    found = scaled(f"dfp{bits}").round(x, rounding)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(found.numpy(), integers * 2.0**exponent)
    coded = scaled(f"dfp{bits}").encode(x, rounding)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(coded.codes.numpy(), integers.astype(np.int64) % 2**bits)


@pytest.mark.parametrize("bits", range(11, 17))
def test_msfp_is_its_formula(bits: int) -> None:
    x = draws(4, 48)
    fraction = bits - 9
    boxes = x.double().numpy().reshape(4, 3, 16)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(np.abs(boxes).max(2, keepdims=True)))
    step = 2.0 ** np.maximum(exponent, -127) * 2.0 ** (1 - fraction)
    most = 2**fraction - 1
    expected = np.rint(boxes / step).clip(-most, most) * step
    found = FORMATS[f"msfp{bits}"].round(x).numpy()
    assert np.array_equal(found, expected.reshape(4, 48).astype(np.float32))


def test_nvfp4_is_its_formula() -> None:
    x = draws(6, 80)
    x[2] *= 2.0**-20  # so small beside the others that their scale rounds to zero
    tensor = (x.abs().max() / (6 * 448)).float()
    boxes = x.view(6, 5, 16)
    block = boxes.abs().amax(2, keepdim=True) / 6
    block = (block / tensor).clamp(max=448).to(torch.float8_e4m3fn).float()
    scale = block * tensor
    assert (scale == 0).any()
    assert (scale > 0).any()
    over = torch.where(scale > 0, boxes / torch.where(scale > 0, scale, 1.0), 0.0)
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    # Nearest, ties to the even code.
    distance = (over.abs()[..., None] - values).abs()
    odd = 1e-6 * (torch.arange(8) % 2)
    expected = values[(distance + odd).argmin(-1)].copysign(over) * scale
    found = FORMATS["nvfp4"].round(x)
    assert torch.equal(found.view(6, 5, 16), expected)
    stored = scaled("nvfp4").encode(x)
    assert [s.shape for s in stored.scales] == [(6, 5), ()]


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("over", ["tensor", "channel", "block"])
def test_integers_are_rounded_quotients(bits: int, over: str) -> None:
    x = draws(5, 30)
    options = {"tensor": "", "channel": ":over=channel", "block": ":block=10"}
    format = scaled(f"int{bits}{options[over]}")
    most = 2 ** (bits - 1) - 1
    groups = {"tensor": x.view(1, -1), "channel": x, "block": x.view(-1, 10)}[over]
    step = groups.abs().amax(1, keepdim=True) / most
    step = step.clamp(min=2.0**-126)
    expected = torch.round(groups / step).clamp(-most, most) * step
    axis = 0 if over == "channel" else 1
    assert torch.equal(format.round(x, axis=axis), expected.view_as(x) + 0.0)
    codes = format.encode(x, axis=axis).codes
    assert torch.equal(codes, torch.round(groups / step).long().view_as(x) % 2**bits)


@pytest.mark.parametrize("name", ["uint8", "uint4"])
def test_affine_integers_are_torchs(name: str) -> None:
    format = scaled(name)
    assert isinstance(format, Affine)
    most = 2**format.bits - 1
    for x in (draws(200), draws(50).abs() + 1, -draws(50).abs()):
        encoded = format.encode(x)
        step = (x.max().clamp(min=0) - x.min().clamp(max=0)).double() / most
        step = step.float().double()
        zero = int(torch.round(-x.min().clamp(max=0) / step.float()))
        assert format.rule.scale(encoded.scales).item() == step.item()
        assert encoded.scales[1].item() == zero
        # torch multiplies by the inverse; the difference is below half a step.
        torchs = torch.fake_quantize_per_tensor_affine(x, step.item(), zero, 0, most)
        assert (format.round(x) - torchs).abs().max() <= step * 1.001
        expected = (torch.round(x / step.float()) + zero).clamp(0, most)
        assert torch.equal(encoded.codes, expected.long())
        assert format.round(torch.tensor([*x, 0.0]))[-1] == 0


@pytest.mark.parametrize("block", [0, 7, 64])
def test_ternary_and_binary_are_the_projections(block: int) -> None:
    x = torch.randn(6, 64)
    groups = x.view(1, -1)
    option = ""
    if block:
        option = f":block={block}"
        pad = torch.nn.functional.pad(x, (0, -64 % block))
        groups = pad.view(-1, block)
    for name, project in (
        ("ternary", projections.ternary),
        ("ternary-twn", lambda g: projections.ternary(g, "twn")),
        ("binary", projections.binary),
    ):
        if block == 7 and name != "ternary":
            continue  # the shorter block's mean is over its own values
        codes, scale = project(groups)
        expected = (codes * scale).view(6, -1)[:, :64]
        found = FORMATS[name].round(x) if not block else None
        found = format_named(name + option).round(x) if block else found
        assert found is not None
        assert torch.equal(found.sign(), expected.sign())
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_the_mean_of_a_shorter_block_is_over_its_own_values() -> None:
    x = torch.tensor([1.0, -1.0, 3.0])
    assert format_named("binary:block=2").round(x).tolist() == [1.0, -1.0, 3.0]
    assert format_named("ternary-twn:block=2").round(x).tolist() == [1.0, -1.0, 3.0]


def test_a_scale_of_powers_of_two_clamps_nothing_and_wastes_no_octave() -> None:
    for top in (448.0, 449.0, 224.0, 300.0, 1.0, 2.0**-100, 1.75 * 2.0**100):
        x = torch.tensor([top, 0.3 * top])
        stored = formats.scaled("fp8-e4m3", scale="power-of-two").fit(x)
        scale = 2.0 ** (int(stored[0]) - 127)
        assert top / scale <= 448 < 2 * top / scale
    x = draws(300)
    named = formats.scaled("fp8-e4m3").round(x)
    factor = x.abs().max() / 448
    torchs = (x / factor).to(torch.float8_e4m3fn).float() * factor
    assert torch.equal(named, torchs)


def test_powers_of_two_go_to_the_nearest() -> None:
    x = torch.tensor([1.4, 0.8, -0.3, 0.07, 0.0])
    assert FORMATS["pow2-4"].round(x).tolist() == [1.0, 1.0, -0.25, 0.0625, 0.0]
    x[0] = 1.6  # nearer to 2, which becomes the largest power
    assert FORMATS["pow2-4"].round(x).tolist() == [2.0, 1.0, -0.25, 0.0625, 0.0]


def test_logarithmic_values_are_an_eighth_of_an_octave_apart() -> None:
    x = torch.cat([torch.tensor([5.0]), torch.rand(1000) * 5])
    found = FORMATS["log8"].round(x)
    assert found[0] == 5.0
    exponents = 8 * torch.log2(found[found > 0] / 5)
    assert (exponents - exponents.round()).abs().max() < 1e-4
    large = x > 5 * 2.0**-15
    error = (found - x)[large].abs() / x[large]
    assert error.max() <= (2**0.125 - 1) / 2 * 1.001


# What all of them have in common.


def blocks_of(format: Format) -> int:
    return format.grouping.block if isinstance(format, Scaled) else 0


@pytest.mark.parametrize("format", SCALED, ids=IDS)
@pytest.mark.parametrize("rounding", ["nearest", "zero", "stochastic"])
def test_what_is_encoded_is_what_is_rounded(format: Scaled, rounding: str) -> None:
    for x, axis in ((draws(3, 70), 1), (draws(70, 3), 0), (draws(2, 35, 2), 1)):
        encoded = format.encode(x, rounding, seed=4, axis=axis)  # pyright: ignore[reportArgumentType]
        assert encoded.codes.min() >= 0
        assert encoded.codes.max() < 2**format.bits
        for codes, stored in zip(encoded.scales, format.rule.formats, strict=True):
            assert codes.min() >= 0
            assert codes.max() < 2**stored.bits
        found = format.round(x, rounding, seed=4, axis=axis)  # pyright: ignore[reportArgumentType]
        assert torch.equal(format.decode(encoded, axis).float(), found)
        kept = sum(
            c.numel() * f.bits
            for c, f in zip(encoded.scales, format.rule.formats, strict=True)
        )
        assert format.storage(x.shape, axis) == x.numel() * format.bits + kept


@pytest.mark.parametrize("format", SCALED, ids=IDS)
def test_zeros_and_nothing_at_all(format: Scaled) -> None:
    assert not format.round(torch.zeros(2, 40)).any()
    assert not format.round(torch.tensor(0.0)).any()
    for shape in ((0,), (3, 0), (0, 3), (2, 0, 2)):
        x = torch.empty(shape)
        assert format.round(x).shape == shape
        encoded = format.encode(x)
        assert format.decode(encoded).shape == shape
    one = format.round(torch.tensor(0.75))
    assert one.dim() == 0
    assert 0.5 <= one.item() <= 1.0
    assert format.decode(format.encode(torch.tensor(0.75))).float() == one


@pytest.mark.parametrize("format", SCALED, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_stays(format: Scaled, dtype: torch.dtype) -> None:
    x = draws(4, 40).clamp(-100, 100).to(dtype)
    found = format.round(x)
    assert found.dtype == dtype
    if dtype != torch.float64:
        assert torch.equal(found, format.round(x.float()).to(dtype))


@pytest.mark.parametrize("name", ["mxfp8", "int4", "binary", "uint8"])
@pytest.mark.parametrize("block", [10**12, 10**20])
def test_a_block_longer_than_the_axis_takes_no_room(name: str, block: int) -> None:
    x = draws(3, 40)
    longer = scaled(f"{name}:block={block}")
    rows = torch.stack([scaled(f"{name}:block=40").round(row) for row in x])
    assert torch.equal(longer.round(x), rows)
    assert torch.equal(formats.round(x, longer.name), rows)


@pytest.mark.parametrize("format", SCALED, ids=IDS)
def test_a_shorter_block_is_as_if_filled_up_with_zeros(format: Scaled) -> None:
    block = blocks_of(format)
    if not block:
        pytest.skip("no blocks")
    length = 2 * block + block // 2
    x = draws(3, length)
    padded = torch.nn.functional.pad(x, (0, 3 * block - length))
    assert torch.equal(format.round(x), format.round(padded)[:, :length])
    tail = x.clone()
    tail[:, : 2 * block] = 0
    if not format.name.startswith("nvfp4"):  # whose tensor has a scale, too
        assert torch.equal(
            format.round(x)[:, 2 * block :], format.round(tail)[:, 2 * block :]
        )


@pytest.mark.parametrize("format", SCALED, ids=IDS)
def test_the_axis_is_where_the_groups_run(format: Scaled) -> None:
    x = draws(40, 33, 3)
    for axis in (0, 1, 2):
        moved = format.round(x.movedim(axis, -1).contiguous()).movedim(-1, axis)
        if format.grouping.over == "channel":
            slices = [format.round(s, axis=0) for s in x.movedim(axis, 0)[:, None]]
            expected = torch.cat(slices).movedim(0, axis)
            assert torch.equal(format.round(x, axis=axis), expected)
        assert torch.equal(format.round(x, axis=axis), moved)
        assert torch.equal(format.round(x, axis=axis - 3), moved)
    if format.grouping.over != "tensor":
        with pytest.raises(ValueError, match=r"round\(axis=3\).*\[-3, 3\)"):
            format.round(x, axis=3)


@pytest.mark.parametrize("format", SCALED, ids=IDS)
def test_nan_and_infinity_stay_where_they_are(format: Scaled) -> None:
    x = draws(3, 70)
    x[0, 0] = 3.0
    expected = format.round(x, axis=1)
    bad = x.clone()
    bad[1, 40] = math.nan
    found = format.round(bad, axis=1)
    gone = torch.zeros_like(x, dtype=torch.bool)
    gone[1, 40] = True
    if format.rule.spreads_nan and not format.element.has_nan:
        block = blocks_of(format)
        first = 40 // block * block
        gone[1, first : first + block] = True
        assert same(format.decode(format.encode(bad, axis=1), 1).float(), found)
    elif not format.element.has_nan:
        with pytest.raises(ValueError, match=r"1 NaN among 210.*has no"):
            format.encode(bad, axis=1)
    assert torch.equal(found.isnan(), gone)
    without = torch.where(bad.isnan(), 0.0, bad)
    expected = format.round(without, axis=1)
    if not isinstance(format.rule, type(FORMATS["binary"].rule)):  # which counts it
        assert torch.equal(found[~gone], expected[~gone])
    bad = x.clone()
    bad[1, 40] = -math.inf
    found = format.round(bad, axis=1)
    assert found.isfinite().all()
    others = found[:, 40] if format.grouping.over == "channel" else found[1]
    assert found[1, 40] <= others[:64].min()


@pytest.mark.parametrize("format", SCALED, ids=IDS)
def test_the_ends_of_float32(format: Scaled) -> None:
    x = torch.tensor([3.4e38, -3.4e38, 1e38, 1.0])
    found = format.round(x)
    assert not found.isnan().any()
    # What half a step lifts beyond float32 is infinite, as the sum of such numbers is.
    few = ("ternary", "binary", "pow2", "uint2")  # elements, none near the largest
    assert (found[0] > 2.5e38) or format.name.startswith(few)
    tiny = torch.tensor([1e-45, -1e-45, 0.0])
    assert format.round(tiny).abs().max() <= 2.0**-126
    for value in SPECIAL:
        assert not format.round(torch.tensor([value, 1.0]))[1].isnan() or (
            math.isnan(value) and format.rule.spreads_nan
        )


@pytest.mark.parametrize("format", SCALED, ids=IDS)
def test_a_scale_that_overflows_is_said(format: Scaled) -> None:
    x = torch.tensor([1.0, 1e300], dtype=torch.float64)
    with pytest.raises(
        ValueError, match=f"{re.escape(format.name)}: the scale of 1e\\+300 overflows"
    ):
        format.round(x)


def test_flipped_bits_of_a_scale_change_its_group_alone() -> None:
    format = scaled("mxfp4")
    encoded = format.encode(torch.ones(2, 64))
    scales = encoded.scales[0].clone()
    scales[1, 0] ^= 1
    found = format.decode(Encoded(encoded.codes, (scales,)))
    changed = found != 1
    assert changed[1, :32].all()
    assert not changed[0].any()
    assert not changed[1, 32:].any()
    scales[1, 0] = 255
    assert format.decode(Encoded(encoded.codes, (scales,)))[1, :32].isnan().all()


def test_groups_and_their_counts() -> None:
    x = torch.arange(10.0).view(2, 5)
    groups = Grouping("block", 2).split(x, axis=1)
    assert groups.values.tolist() == [[0, 1], [2, 3], [4, 0], [5, 6], [7, 8], [9, 0]]
    assert groups.counts.flatten().tolist() == [2, 2, 1, 2, 2, 1]
    groups = Grouping("block", 2).split(x, axis=0)
    assert groups.values.tolist() == [[0, 5], [1, 6], [2, 7], [3, 8], [4, 9]]
    groups = Grouping("channel").split(x, axis=1)
    assert groups.values.tolist() == [[0, 5], [1, 6], [2, 7], [3, 8], [4, 9]]
    with pytest.raises(
        ValueError, match=r"Grouping\(block=0\): must be an integer >= 1"
    ):
        Grouping("block")
    with pytest.raises(ValueError, match=r"Grouping\(over='row'\)"):
        Grouping("row")  # pyright: ignore[reportArgumentType]
