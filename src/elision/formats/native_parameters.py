"""What the native kernels are told about a format."""

import ctypes
import functools
import math

import torch

from elision.formats.base import Coded, Format, Rounding
from elision.formats.floating import Floating
from elision.formats.integer import Integer
from elision.formats.scaled import Scaled
from elision.formats.scales import Largest, Power, TwoLevel

__all__ = ["FIXED", "NARROW", "WIDE", "Element", "Rule", "element_of", "rule_of"]

WIDE, NARROW, FIXED = range(3)
_POWER, _LARGEST, _TWO_LEVEL = range(3)
_MOST = torch.finfo(torch.float32).max
_TOP, _LOWEST = 127, -126  # exponents of normal float32 numbers


class Element(ctypes.Structure):
    """A format whose values stand alone: ``Element`` of ``kernels/rounding.hpp``."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "fraction", "lowest", "below")),
        *((n, ctypes.c_float) for n in ("largest", "beyond", "infinite", "least")),
        *((name, ctypes.c_int32) for name in ("negative", "minus_zero")),
    )


class Rule(ctypes.Structure):
    """A rule of shared scales: ``Rule`` of ``kernels/scaled_rounding.cpp``."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "lead", "spreads_nan")),
        *((name, ctypes.c_float) for name in ("largest", "whole")),
        ("block", Element),
    )


@functools.lru_cache(maxsize=1024)
def element_of(format: Format, rounding: Rounding) -> Element | None:
    """The parameters of a format without scales; None if the kernels have none for it."""
    if type(format) is Integer:
        return _whole(format)
    if type(format) is Floating:
        return _floating(format, rounding)
    return None


@functools.lru_cache(maxsize=1024)
def rule_of(format: Scaled) -> Rule | None:
    """The parameters of a format's scales; None if the kernels have none for them."""
    rule, largest = format.rule, format.element.largest
    if type(format) is not Scaled:
        return None
    spreads = rule.spreads_nan and not format.element.has_nan
    if isinstance(rule, Power) and rule.growth == 1 and rule.lead >= 0:
        return Rule(kind=_POWER, lead=rule.lead, spreads_nan=spreads)
    if isinstance(rule, Largest):
        return Rule(kind=_LARGEST, spreads_nan=spreads, largest=largest)
    if isinstance(rule, TwoLevel):
        block = element_of(rule.of_block.saturating, "nearest")
        if block is None or block.kind != NARROW:
            return None
        whole = largest * rule.of_block.largest
        return Rule(_TWO_LEVEL, 0, spreads, largest, whole, block)
    return None


def _whole(format: Integer) -> Element:
    return Element(
        kind=FIXED,
        lowest=-format.point,
        largest=format.largest,
        least=format.least * 2.0**-format.point,
    )


def _floating(format: Floating, rounding: Rounding) -> Element | None:
    lowest, fraction = 1 - format.bias, format.fraction_bits
    below = fraction if format.subnormals else 0
    if not fraction or format.largest > _MOST:
        return None
    wide = lowest == _LOWEST and format.subnormals
    # The numbers that the kernels add, to round, must be float32 numbers.
    top = math.frexp(format.largest)[1] - 1
    narrow = fraction < 23 and _LOWEST <= lowest - below <= 0
    narrow = narrow and top + 23 - fraction <= _TOP
    if not (wide or narrow):
        return None
    # What becomes of values beyond the range is asked of the format itself.
    beyond, infinite, negative, zero = _asked(
        format, rounding, 2 * format.largest, math.inf, -format.largest, -0.0
    )
    return Element(
        kind=WIDE if wide else NARROW,
        fraction=fraction,
        lowest=lowest,
        below=below,
        largest=format.largest,
        beyond=beyond,
        infinite=infinite,
        negative=not math.isnan(negative),
        minus_zero=math.copysign(1, zero) < 0,
    )


def _asked(format: Coded, rounding: Rounding, *values: float) -> list[float]:
    return format.round(torch.tensor(values, dtype=torch.float64), rounding).tolist()
