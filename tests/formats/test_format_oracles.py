"""Formats of floating point against gfloat and ml_dtypes, on every code and at every tie."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from number_formats import codes_of, probes, same
from torch import Tensor

from elision.formats import FLOATS, Floating, format_named
from elision.formats.exponent import E8M0
from elision.formats.integer import Integer

gfloat = pytest.importorskip("gfloat")
ml_dtypes = pytest.importorskip("ml_dtypes")

#: Formats without a name of their own: narrow, wide, odd biases, all kinds of specials.
OTHERS = [
    "e5m3",
    "e3m2:bias=7",
    "e1m2:specials=finite",
    "e2m1",
    "e2m1:specials=fnuz",
    "e4m0:specials=finite",
    "e5m0:specials='nan'",
    "e3m0:specials=fnuz",
    "e6m9",
    "e7m8:bias=40",
    "e8m5",
    "e4m11:specials='nan'",
]
ALL = [f for f in FLOATS.values() if f.bits <= 16] + [format_named(t) for t in OTHERS]
IDS = [f.name for f in ALL]

NUMPY = {
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "fp8-e4m3": ml_dtypes.float8_e4m3fn,
    "fp8-e5m2": ml_dtypes.float8_e5m2,
    "fp8-e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8-e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp6-e3m2": ml_dtypes.float6_e3m2fn,
    "fp6-e2m3": ml_dtypes.float6_e2m3fn,
    "fp4-e2m1": ml_dtypes.float4_e2m1fn,
    "e3m4": ml_dtypes.float8_e3m4,
    "e4m3": ml_dtypes.float8_e4m3,
    "e4m3:bias=11,specials=fnuz": ml_dtypes.float8_e4m3b11fnuz,
}


def described(format: Floating) -> "gfloat.FormatInfo":
    """The format as gfloat describes it."""
    nans = {"ieee": 2**format.fraction_bits - 1, "nan": 1, "fnuz": 0, "finite": 0}
    ieee = format.specials == "ieee"
    return gfloat.FormatInfo(
        format.name,
        format.bits,
        format.fraction_bits + 1,
        bias=format.bias,
        is_signed=True,
        domain=gfloat.Domain.Extended if ieee else gfloat.Domain.Finite,
        has_nz=format.specials != "fnuz",
        num_high_nans=nans[format.specials],
        has_subnormals=True,
        is_twos_complement=False,
    )


@pytest.mark.parametrize("format", ALL, ids=IDS)
def test_every_code_is_read_as_gfloat_reads_it(format: Floating) -> None:
    info = described(format)
    codes = codes_of(format)
    expected = torch.from_numpy(gfloat.decode_ndarray(info, codes.numpy())).double()
    found = format.decode(codes)
    assert same(found, expected)
    number = ~expected.isnan()
    assert torch.equal(format.encode(found[number]), codes[number])
    assert format.largest == info.max
    assert format.smallest == info.smallest
    assert format.has_nan == (info.num_nans > 0)


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("rounding", ["nearest", "zero"])
@pytest.mark.parametrize("format", ALL, ids=IDS)
def test_every_tie_and_its_neighbours_go_where_gfloat_sends_them(
    format: Floating, rounding: str, saturates: bool
) -> None:
    if format.specials == "finite" and not saturates:
        pytest.skip("what overflows such a format has nowhere to go but the largest")
    format = replace(format, saturates=saturates)
    x = probes(format)
    x = x[~x.isnan()]
    if not format.fraction_bits:
        # Half-way between powers of two, gfloat goes to the even code.
        x = x[torch.frexp(x).mantissa.abs() != 0.75]
    modes = gfloat.RoundMode
    mode = modes.TiesToEven if rounding == "nearest" else modes.TowardZero
    with np.errstate(all="ignore"):
        expected = gfloat.round_ndarray(
            described(format), x.double().numpy(), mode, sat=saturates
        )
    found = format.round(x, rounding)  # pyright: ignore[reportArgumentType]
    expected = torch.from_numpy(expected)
    if format.specials == "fnuz":
        expected = expected + 0.0  # gfloat keeps the sign of a zero that has none
    assert same(found.double(), expected)


@pytest.mark.parametrize("name", NUMPY)
def test_ml_dtypes_agrees(name: str) -> None:
    format = format_named(name)
    assert isinstance(format, Floating)
    format = replace(format, saturates=False)
    dtype = np.dtype(NUMPY[name])
    x = torch.cat([probes(format), torch.randn(10_000) * format.largest / 3])
    if format.specials == "finite":
        x = x[x.isfinite()]  # ml_dtypes turns NaN to a number
    with np.errstate(over="ignore", invalid="ignore"):
        expected = torch.from_numpy(x.numpy().astype(dtype).astype(np.float32))
    assert same(format.round(x), expected)
    if format.bits <= 8:
        codes = codes_of(format)
        bits = codes.numpy().astype(np.uint8).view(dtype).astype(np.float64)
        assert same(format.decode(codes), torch.from_numpy(bits))


def test_exponents_are_read_as_gfloat_and_torch_read_them() -> None:
    from gfloat.formats import format_info_ocp_e8m0

    codes = torch.arange(256)
    expected = gfloat.decode_ndarray(format_info_ocp_e8m0, codes.numpy())
    assert same(E8M0.decode(codes), torch.from_numpy(expected))
    assert torch.equal(E8M0.encode(E8M0.decode(codes)), codes)
    x = torch.cat([torch.rand(1000) * 8, torch.tensor([1.0, 1.5, 3.0, 0.75, 2.0**126])])
    torchs = x.to(torch.float8_e8m0fnu).view(torch.uint8).long()
    assert torch.equal(E8M0.encode(x), torchs)
    odd = torch.tensor([0.0, -1.0, 1e-45, 3.4e38, math.inf, math.nan])
    assert E8M0.encode(odd).tolist() == [0, 255, 0, 254, 255, 255]
    assert E8M0.encode(torch.tensor([1.9, 4.0]), "zero").tolist() == [127, 129]


def test_integers_are_gfloats() -> None:
    from gfloat.formats import format_info_ocp_int8

    codes = torch.arange(256)
    element = Integer("int8", 8, symmetric=False, point=6)
    expected = gfloat.decode_ndarray(format_info_ocp_int8, codes.numpy())
    assert torch.equal(element.decode(codes), torch.from_numpy(expected))
    assert torch.equal(element.encode(element.decode(codes)), codes)


@pytest.mark.parametrize("width", [2, 3, 8, 11, 16])
@pytest.mark.parametrize("kind", ["symmetric", "full", "unsigned", "sign"])
def test_integers_by_their_definition(width: int, kind: str) -> None:
    number = Integer(
        "i",
        width,
        signed=kind != "unsigned",
        symmetric=kind != "full",
        sign_magnitude=kind == "sign",
    )
    values: Tensor = number.decode(codes_of(number))
    kept = values.unique()
    kept = kept[(kept >= number.least) & (kept <= number.most)]
    assert torch.equal(kept, torch.arange(number.least, number.most + 1).double())
    assert torch.equal(number.decode(number.encode(kept)), kept)
    x = torch.cat([kept + 0.5, kept - 0.5, kept + 0.3, torch.tensor([math.inf, -1e30])])
    clamped = x.clamp(number.least, number.most)
    assert torch.equal(number.round(x), torch.round(clamped))
    assert torch.equal(number.round(x, "zero"), torch.trunc(clamped))
    assert number.round(torch.tensor(math.nan)).isnan()
    with pytest.raises(ValueError, match="1 NaN among 2 values, and i has no code"):
        number.encode(torch.tensor([1.0, math.nan]))
