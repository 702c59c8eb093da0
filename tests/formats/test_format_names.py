"""Names of formats: a stable list, parameters, and errors that say what is allowed."""

import subprocess
import sys

import pytest

from elision.formats import FLOATS, FORMATS, Floating, Scaled, format_named
from elision.formats.grouping import Grouping

FIXED = (
    "fp32",
    "bf16",
    "fp16",
    "tf32",
    "fp8-e4m3",
    "fp8-e5m2",
    "fp8-e3m4",
    "fp8-e4m3fnuz",
    "fp8-e5m2fnuz",
    "fp6-e3m2",
    "fp6-e2m3",
    "fp4-e2m1",
    "mxfp8",
    "mxfp8-e5m2",
    "mxfp6",
    "mxfp6-e2m3",
    "mxfp4",
    "mxint8",
    "nvfp4",
    "msfp12",
    "msfp16",
    "dfp16",
    "dfp12",
    "dfp8",
    "int2",
    "int3",
    "int4",
    "int8",
    "int16",
    "ternary",
    "binary",
)


def test_the_names_that_are_promised() -> None:
    assert set(FIXED) <= set(FORMATS)
    assert list(FORMATS)[: len(FLOATS)] == list(FLOATS)
    for name, format in FORMATS.items():
        assert format.name == name
        assert format_named(name) is format_named(name)
        assert format_named(name) == format


@pytest.mark.parametrize(
    "text",
    [
        "e5m3",
        "e4m3:bias=8,specials=fnuz",
        "e3m4:specials='nan',saturates=True",
        "e2m3:specials=finite,subnormals=False",
        "mxfp8:block=16",
        "nvfp4:block=32",
        "msfp12:block=8",
        "int4:block=64",
        "int8:over=channel",
        "uint8:over=channel",
        "ternary:block=64",
        "dfp16:over=channel",
        "pow2-4:block=32",
        "scaled(fp8-e4m3)",
        "scaled(fp8-e5m2, scale=power-of-two, over=channel)",
        "scaled('e4m3:bias=8,specials=fnuz', block=16)",
    ],
)
def test_a_name_is_read_as_it_is_written(text: str) -> None:
    format = format_named(text)
    assert format.name == text
    assert format_named(format.name) == format


def test_what_parameters_change() -> None:
    e5m3 = format_named("e5m3")
    assert isinstance(e5m3, Floating)
    assert (e5m3.bits, e5m3.bias, e5m3.largest) == (9, 15, 1.875 * 2**15)
    assert format_named("e4m3:bias=7,specials='nan'").largest == 448
    half = format_named("int8(block=64)")
    assert isinstance(half, Scaled)
    assert half.grouping == Grouping("block", 64)
    assert format_named("mxfp8(32)") == FORMATS["mxfp8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bf61", "unknown number format 'bf61' (did you mean 'bf16'?); known: fp32, "),
        ("mxfp8:blok=3", "unknown parameter of number format 'mxfp8' 'blok'"),
        ("mxfp8:block=0", "block"),
        ("int8:over=row", "'tensor' or 'channel'"),
        ("int8:over=channel,block=3", "give one of the two"),
        ("fp16:block=3", "fp16 takes no parameters"),
        ("e9m3", "exponent_bits=9): must be an integer in [2, 8]"),
        ("e1m0:specials=finite", "fraction_bits=0): must be an integer in [1, 23]"),
        ("e4m3:specials=nan", "specials"),
        ("scaled(mxfp8)", "scaled(mxfp8): mxfp8 has scales of its own"),
        ("scaled(fp8-e4m3, scale=half)", "'largest' or 'power-of-two'"),
        ("", "a name is missing"),
    ],
)
def test_bad_names_are_answered_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        format_named(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_oracles_are_not_imported() -> None:
    code = (
        "import sys, elision.formats; "
        "print([m for m in ('gfloat', 'ml_dtypes', 'numba') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
