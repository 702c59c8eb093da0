"""The formats that have a name."""

import torch

from elision.formats.base import Format
from elision.formats.floating import Floating
from elision.formats.grouping import Grouping
from elision.formats.integer import Integer
from elision.formats.scaled import Scaled
from elision.formats.scales import FP32, Largest, Power

__all__ = ["FLOATS", "FORMATS"]

_FLOATS = (
    FP32,
    Floating("bf16", 8, 7, bias=127, dtype=torch.bfloat16),
    Floating("fp16", 5, 10, bias=15, dtype=torch.float16),
    Floating(
        "fp8-e4m3",
        exponent_bits=4,
        fraction_bits=3,
        bias=7,
        specials="nan",
        saturates=True,  # as torch's conversion, which has no infinity to give
        dtype=torch.float8_e4m3fn,
    ),
    Floating("fp8-e5m2", 5, 2, bias=15, dtype=torch.float8_e5m2),
)

#: Formats of floating point by their names; their codes stand alone.
FLOATS: dict[str, Floating] = {f.name: f for f in _FLOATS}

_TENSOR = Grouping()
_MX = Grouping("block", 32)

_SCALED = (
    Scaled("mxfp8", FLOATS["fp8-e4m3"].saturating, Power(8), _MX),
    Scaled("dfp16", Integer("int16", 16, symmetric=False), Power(14), _TENSOR),
    Scaled("dfp8", Integer("int8", 8, symmetric=False), Power(6), _TENSOR),
    Scaled("int8", Integer("int8", 8), Largest(), _TENSOR),
)

#: Formats by the names that recipes use.
FORMATS: dict[str, Format] = {**FLOATS, **{f.name: f for f in _SCALED}}
