"""Ordered sums by the native kernel: the oracle's bits, in registers."""

import ctypes
import functools
import math

import torch
from torch import Tensor

from elision.engines.accumulating.summation import Summation
from elision.formats import FORMATS, Floating
from elision.formats.accumulate import INT32, Accumulate
from elision.formats.native_parameters import Element, element_of
from elision.native import shared_object
from elision.products.terms import OrderedSum

__all__ = ["can_compute", "sizes", "sums"]

_WAYS = {"nearest": 0, "zero": 1, "stochastic": 2}
_INT, _LONG = ctypes.c_int32, ctypes.c_int64


class _How(ctypes.Structure):
    """``How`` of ``native/kernels/accumulate.cpp``."""

    _fields_ = (
        ("narrow", Element),
        ("wide", Element),
        *((n, _INT) for n in ("narrows", "widens", "each", "way")),
        *((n, _INT) for n in ("compensated", "bounded")),
        *((n, _LONG) for n in ("chunk", "wide_chunk")),
        ("key", ctypes.c_uint32),
    )


def can_compute(accumulate: Accumulate) -> bool:
    """Whether there is a kernel for such sums on this machine; builds the kernels."""
    if accumulate.format in ("torch", INT32):
        return False
    formats = (FORMATS[accumulate.format], FORMATS[accumulate.wide])
    if any(element_of(f, "nearest") is None for f in formats):
        return False
    return shared_object.unavailable() is None


def sums(of: Summation) -> None:
    """Compute sums of any format that :func:`can_compute` knows.

    Raises:
        MemoryError: there is no memory for the operands in the kernel's order.
    """
    b = of.padded(of.b)
    for order in of.order.sums:
        failed = shared_object.load().elision_accumulate(
            of.a.data_ptr(),
            b.data_ptr(),
            of.out.data_ptr(),
            sizes(order),
            ctypes.byref(_told(of, order.terms)),
            torch.get_num_threads(),
        )
        if failed:
            raise MemoryError("the native kernels ran out of memory")


def _told(of: Summation, terms: int) -> _How:
    how = of.accumulate
    narrow = element_of(FORMATS[how.format], how.rounding)
    wide = element_of(FORMATS[how.wide], "nearest")
    assert narrow is not None
    assert wide is not None
    chunk = min(how.chunk or terms, terms)
    return _How(
        narrow=narrow,
        wide=wide,
        narrows=how.format != "fp32",
        widens=how.wide != "fp32",
        each=how.rounds == "addition",
        way=_WAYS[how.rounding],
        compensated=how.compensated,
        bounded=_is_bounded(how, chunk, of.a, of.b),
        chunk=how.chunk,
        wide_chunk=how.wide_chunk,
        key=of.key,
    )


def _is_bounded(how: Accumulate, terms: int, a: Tensor, b: Tensor) -> bool:
    """Whether no sum of a chunk can leave the range, so that the kernel need not look.

    A sum that is rounded to nearest grows by at most twice its terms: what is not more
    than half a step is lost, and what is more is less than doubled. A compensated one
    takes another term's rounding along.
    """
    format = FORMATS[how.format]
    assert isinstance(format, Floating)
    if how.rounding != "nearest" or not format.subnormals:
        return False
    most = (4 if how.compensated else 2) * terms * _magnitude(a) * _magnitude(b)
    # The kernel adds 1.5·2^23 steps of the sum, which must be a number of float32.
    return most < min(format.largest, 2.0 ** (103 + format.fraction_bits))


def _magnitude(x: Tensor) -> float:
    """The largest magnitude; NaN if there is one, which is below no bound."""
    low, high = torch.aminmax(x)
    return math.nan if low.isnan() else max(-low.item(), high.item())


@functools.lru_cache(maxsize=1024)
def sizes(order: OrderedSum) -> ctypes.Array[ctypes.c_int64]:
    """``Sum`` of ``native/kernels/ordered_sum.hpp``."""
    o = order
    numbers = [
        o.groups,
        *(*o.m, *o.a_m, *o.out_m),
        *(*o.t, *o.a_t, *o.b_t),
        *(*o.n, *o.b_n, *o.out_n),
        *(o.a, o.b, o.out, o.a_group, o.b_group, o.out_group),
    ]
    return (_LONG * len(numbers))(*numbers)
