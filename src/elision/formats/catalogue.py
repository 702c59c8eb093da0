"""The formats that have a name, and the parameters that a name may be given.

Each name stands for a function whose parameters are those of the text
``name:parameter=value,...`` (:mod:`elision.common.specs`); without any, it makes the format
of :data:`FORMATS`. The name of what is made says the parameters again, so that a format can
be written to a file and read from it.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch

from elision.common.specs import Spec
from elision.formats.affine import Affine, Range
from elision.formats.base import Coded, Format
from elision.formats.floating import Floating
from elision.formats.grouping import Grouping
from elision.formats.integer import Integer
from elision.formats.scaled import Scaled
from elision.formats.scales import FP32, Largest, Mean, Power, Rule, TwoLevel
from elision.formats.table import Table
from elision.formats.threshold import Thresholded

__all__ = ["FLOATS", "FORMATS", "MAKERS", "floating_of", "grouping_of"]

Maker = Callable[..., Format]

_E2M1 = Floating("fp4-e2m1", 2, 1, bias=1, specials="finite")
_E4M3 = Floating(
    "fp8-e4m3",
    exponent_bits=4,
    fraction_bits=3,
    bias=7,
    specials="nan",
    saturates=True,  # as torch's conversion, which has no infinity to give
    dtype=torch.float8_e4m3fn,
)

_FLOATS = (
    FP32,
    Floating("tf32", 8, 10, bias=127),
    Floating("bf16", 8, 7, bias=127, dtype=torch.bfloat16),
    Floating("fp16", 5, 10, bias=15, dtype=torch.float16),
    _E4M3,
    Floating("fp8-e5m2", 5, 2, bias=15, dtype=torch.float8_e5m2),
    # Shen et al., Efficient Post-training Quantization with FP8 Formats, arXiv
    # 2309.14592, table 1: largest value 30, one NaN, no infinity.
    Floating("fp8-e3m4", 3, 4, bias=3, specials="nan", saturates=True),
    Floating(
        "fp8-e4m3fnuz", 4, 3, bias=8, specials="fnuz", dtype=torch.float8_e4m3fnuz
    ),
    Floating(
        "fp8-e5m2fnuz", 5, 2, bias=16, specials="fnuz", dtype=torch.float8_e5m2fnuz
    ),
    Floating("fp6-e3m2", 3, 2, bias=3, specials="finite"),
    Floating("fp6-e2m3", 2, 3, bias=1, specials="finite"),
    _E2M1,
)

#: Formats of floating point by their names; their codes stand alone.
FLOATS: dict[str, Floating] = {f.name: f for f in _FLOATS}

#: Weights that share a step, of the integers called "group": GPTQ's and AWQ's habit.
_GROUP = 128


def _named(base: str, **given: Any) -> str:
    """The name with those parameters that are not None, as it is read again."""
    return str(Spec(base, (), {k: v for k, v in given.items() if v is not None}))


def grouping_of(owner: str, over: str, block: int) -> Grouping:
    """Blocks of this length, or else one scale for the tensor or for each channel.

    Raises:
        ValueError: a block and channels at once.
    """
    if not block:
        return Grouping(over)  # pyright: ignore[reportArgumentType]
    if over != "tensor":
        raise ValueError(f"{owner}(over={over!r}, block={block}): give one of the two")
    return Grouping("block", block)


def _is(format: Format) -> Maker:
    def make() -> Format:
        return format

    return make


def _blocks(base: str, element: Coded, rule: Rule, usual: int) -> Maker:
    """Blocks of a usual length."""

    def make(block: int = usual) -> Format:
        name = _named(base, block=None if block == usual else block)
        return Scaled(name, element, rule, Grouping("block", block))

    return make


def _shared(
    base: str, element: Coded, rule: Rule, kind: type[Scaled] = Scaled
) -> Maker:
    """One scale for the tensor, unless a parameter says otherwise."""

    def make(over: Literal["tensor", "channel"] = "tensor", block: int = 0) -> Format:
        name = _named(
            base, over=None if over == "tensor" else over, block=block or None
        )
        return kind(name, element, rule, grouping_of(base, over, block))

    return make


def floating_of(exponent_bits: int, fraction_bits: int) -> Maker:
    """``eXmY``: IEEE's bias and specials, unless a parameter says otherwise."""
    usual = 2 ** (exponent_bits - 1) - 1

    def make(
        bias: int | None = None,
        specials: Literal["ieee", "nan", "fnuz", "finite"] = "ieee",
        subnormals: bool = True,
        saturates: bool = False,
    ) -> Format:
        name = _named(
            f"e{exponent_bits}m{fraction_bits}",
            bias=bias,
            specials=None if specials == "ieee" else specials,
            subnormals=None if subnormals else False,
            saturates=saturates or None,
        )
        return Floating(
            name,
            exponent_bits,
            fraction_bits,
            usual if bias is None else bias,
            specials=specials,
            subnormals=subnormals,
            saturates=saturates,
        )

    return make


def _mx(base: str, element: Coded) -> Maker:
    """Blocks of 32, brought to the largest power of two of the element (OCP MX v1.0)."""
    lead = math.frexp(element.largest)[1] - 1
    return _blocks(base, element, Power(lead, spreads_nan=True), usual=32)


def _msfp(bits: int) -> Maker:
    """Boxes of 16 with one exponent: a sign and ``bits − 9`` bits without a leading one.

    The name counts the exponent's 8 bits. Source: Darvish Rouhani et al., Pushing the
    Limits of Narrow Precision Inferencing at Cloud Scale with Microsoft Floating Point,
    NeurIPS 2020.
    """
    width = bits - 8
    element = Integer(f"sm{width}", width, point=width - 2, sign_magnitude=True)
    return _blocks(f"msfp{bits}", element, Power(), usual=16)


def _dfp(bits: int) -> Maker:
    """Dynamic fixed point: two's complement with the tensor's exponent.

    With ``E`` that of the largest magnitude, the unit is ``2^(E − (P − 2))``. Source: Das
    et al., Mixed Precision Training of CNNs using Integer Operations, ICLR 2018.
    """
    element = Integer(f"int{bits}", bits, symmetric=False, point=bits - 2)
    return _shared(f"dfp{bits}", element, Power())


def _int(bits: int) -> Maker:
    """Symmetric integers: the largest magnitude is the largest code."""
    return _shared(f"int{bits}", Integer(f"int{bits}", bits), Largest())


def _uint(bits: int) -> Maker:
    """Integers with a zero point."""
    codes = Integer(f"uint{bits}", bits, signed=False)
    return _shared(f"uint{bits}", codes, Range(codes), Affine)


def _pow2(bits: int) -> Maker:
    """Zero and powers of two up to the one nearest the largest magnitude.

    A value goes to the nearest, half of the smallest power to zero, where the paper takes
    the power; the largest power is ``2^⌊log2(4/3 · max|x|)⌋``. Source:
    Zhou et al., Incremental Network Quantization, ICLR 2017, equations 1 to 4, which has
    ``2^(bits − 2)`` powers where this has ``2^(bits − 1) − 1``.
    """
    exponent = bits - 1
    top = 2**exponent - 1
    element = Floating(f"e{exponent}m0", exponent, 0, bias=top, specials="finite")
    return _shared(f"pow2-{bits}", element, Power(growth=4 / 3))


def _log(bits: int, fraction: int) -> Maker:
    """Zero and powers of ``2^(2^−fraction)`` up to the largest magnitude.

    Source: Miyashita, Lee and Murmann, Convolutional Neural Networks using Logarithmic
    Data Representation, arXiv 1603.01025; the nearest value, where the paper takes the
    nearest logarithm, and a free scale.
    """
    count = 2 ** (bits - 1)
    powers = (2.0 ** ((i - count + 1) / 2**fraction) for i in range(1, count))
    return _shared(f"log{bits}", Table(f"log{bits}", (0.0, *powers)), Largest())


def _with(make: Maker, name: str, **given: Any) -> Maker:
    """What a maker makes of these parameters, under a name of its own."""

    def again() -> Format:
        return replace(make(**given), name=name)

    return again


def _makers() -> dict[str, Maker]:
    """Makers by name, in the order in which formats are listed."""
    made: dict[str, Maker] = {name: _is(format) for name, format in FLOATS.items()}
    e4m3, e5m2 = FLOATS["fp8-e4m3"], FLOATS["fp8-e5m2"].saturating
    made["mxfp8"] = _mx("mxfp8", e4m3)
    made["mxfp8-e5m2"] = _mx("mxfp8-e5m2", e5m2)
    made["mxfp6"] = _mx("mxfp6", FLOATS["fp6-e3m2"])
    made["mxfp6-e2m3"] = _mx("mxfp6-e2m3", FLOATS["fp6-e2m3"])
    made["mxfp4"] = _mx("mxfp4", _E2M1)
    made["mxint8"] = _mx("mxint8", Integer("int8", 8, point=6))
    made["nvfp4"] = _blocks("nvfp4", _E2M1, TwoLevel(e4m3), usual=16)
    made |= {f"msfp{bits}": _msfp(bits) for bits in range(11, 17)}
    made |= {f"dfp{bits}": _dfp(bits) for bits in (16, 12, 8)}
    made |= {f"int{bits}": _int(bits) for bits in range(2, 17)}
    for bits in (8, 4):
        made[f"int{bits}-channel"] = _with(
            _int(bits), f"int{bits}-channel", over="channel"
        )
        made[f"int{bits}-group"] = _with(_int(bits), f"int{bits}-group", block=_GROUP)
    made |= {f"uint{bits}": _uint(bits) for bits in range(2, 9)}
    trit = Integer("int2", 2)
    made["ternary"] = _shared("ternary", trit, Mean("exact"))
    made["ternary-twn"] = _shared("ternary-twn", trit, Mean("twn"), Thresholded)
    made["binary"] = _shared("binary", Table("sign", (1.0,)), Mean("all"))
    made |= {f"pow2-{bits}": _pow2(bits) for bits in (4, 5)}
    made["log8"] = _log(8, fraction=3)
    return made


#: What makes a format, by its name without parameters.
MAKERS: dict[str, Maker] = _makers()

#: Formats by the names that recipes use.
FORMATS: dict[str, Format] = {name: make() for name, make in MAKERS.items()}
