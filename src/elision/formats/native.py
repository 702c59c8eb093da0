"""Rounding by the native kernels: the bits of :meth:`Format.round`, many times faster.

:func:`rounded` answers None where there is no kernel for what is asked: another device, a
float64, a format with a range beyond float32, no compiler. The caller then takes torch.

The kernels work on float32 and release the interpreter lock. They use torch's threads; no
result depends on how many. NaN stays a NaN; its payload is of no account.
"""

import ctypes
import functools
import math

import torch
from torch import Tensor

from elision.formats.base import Coded, Format, Rounding
from elision.formats.floating import Floating
from elision.formats.integer import Integer
from elision.native import shared_object

__all__ = ["SMALL", "rounded"]

#: Values for which the kernels are not built if they are not yet (an own choice).
SMALL = 4096

_WAYS = {"nearest": 0, "zero": 1, "stochastic": 2}
_WIDE, _NARROW, _FIXED = range(3)
_FLOAT_MOST = torch.finfo(torch.float32).max
_TOP, _LOWEST = 127, -126  # exponents of float32


class _Element(ctypes.Structure):
    """``Element`` of ``native/kernels/rounding.hpp``."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "fraction", "lowest", "below")),
        *((n, ctypes.c_float) for n in ("largest", "beyond", "infinite", "least")),
        *((name, ctypes.c_int32) for name in ("negative", "minus_zero")),
    )


def rounded(
    x: Tensor,
    format: Format,
    rounding: Rounding = "nearest",
    seed: int = 0,
    axis: int = -1,
    above: float = -1.0,
) -> Tensor | None:
    del axis
    if not isinstance(format, Coded) or x.dtype != torch.float32 or not x.is_cpu:
        return None
    element = _element(format, rounding)
    library = _library(x.numel())
    if element is None or library is None:
        return None
    x = x.contiguous()
    y = torch.empty_like(x)
    library.elision_round(
        x.data_ptr(),
        y.data_ptr(),
        x.numel(),
        ctypes.byref(element),
        _WAYS[rounding],
        seed & 0xFFFF_FFFF,
        above,
        torch.get_num_threads(),
    )
    return y


def _library(count: int) -> ctypes.CDLL | None:
    """The kernels; None if there are none, or none yet and few values to round."""
    if count < SMALL and not shared_object.loaded():
        return None
    return shared_object.load() if shared_object.unavailable() is None else None


@functools.lru_cache(maxsize=256)
def _element(format: Coded, rounding: Rounding) -> _Element | None:
    """What the kernels are told about a format; None if they cannot round to it."""
    if isinstance(format, Integer):
        return _Element(
            kind=_FIXED,
            lowest=-format.point,
            largest=format.largest,
            least=format.least * 2.0**-format.point,
        )
    if not isinstance(format, Floating) or format.largest > _FLOAT_MOST:
        return None
    lowest, fraction = 1 - format.bias, format.fraction_bits
    below = fraction if format.subnormals else 0
    wide = lowest == _LOWEST and format.subnormals
    # The numbers that the kernels add to round must be float32 numbers.
    top = math.frexp(format.largest)[1] - 1
    narrow = fraction < 23 and _LOWEST <= lowest - below <= 0
    narrow = narrow and top + 23 - fraction <= _TOP
    if not (wide or narrow):
        return None
    # What becomes of the values beyond the range is asked of the format itself.
    probes = [math.nan, 2 * format.largest, math.inf, -format.largest, -0.0]
    asked = format.round(torch.tensor(probes, dtype=torch.float64), rounding)
    nan, beyond, infinite, negative, zero = asked.tolist()
    if not math.isnan(nan):
        return None
    return _Element(
        kind=_WIDE if wide else _NARROW,
        fraction=fraction,
        lowest=lowest,
        below=below,
        largest=format.largest,
        beyond=beyond,
        infinite=infinite,
        negative=not math.isnan(negative),
        minus_zero=math.copysign(1, zero) < 0,
    )
