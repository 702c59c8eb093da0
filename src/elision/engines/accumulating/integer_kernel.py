"""Chains of integers by the native kernel: two terms of 16 bits a word, or four of 8."""

import ctypes
import math

import torch
from torch import Tensor

from elision.engines.accumulating import integers
from elision.engines.accumulating.kernel import sizes
from elision.engines.accumulating.summation import Summation
from elision.formats.accumulate import INT32, Accumulate
from elision.native import shared_object

__all__ = ["can_compute", "integers_of", "sums"]

#: Bits of float32's infinity; finite magnitudes are below it.
_INFINITY = 0x7F80_0000


def can_compute(accumulate: Accumulate) -> bool:
    """Whether the kernel sums so on this machine; builds the kernels.

    It adds the chains' sums in float32; another wide format is for the slow way.
    """
    if accumulate.format != INT32 or accumulate.wide != "fp32" or accumulate.wide_chunk:
        return False
    return shared_object.unavailable() is None


def integers_of(x: Tensor) -> tuple[Tensor, float, int] | None:
    """A contiguous float32 tensor as integers, what one of them is worth, and the largest.

    The same integers and scale as :func:`elision.engines.accumulating.integers.integers_of`
    finds, int8 if they fit and the kernel sums bytes on this machine, else int16; None
    where that finds none, or where an integer is no int16.

    Example:
        >>> found = integers_of(torch.tensor([0.75, -0.5]))
        >>> found and (found[0].tolist(), *found[1:])
        ([3, -2], 0.25, 3)
    """
    library = shared_object.load()
    bits, last = ctypes.c_int32(), ctypes.c_int32()
    count = x.numel()
    library.elision_integers_scan(
        x.data_ptr(), count, ctypes.byref(bits), ctypes.byref(last)
    )
    if bits.value >= _INFINITY:
        return None
    if not bits.value:
        return torch.zeros(x.shape, dtype=_narrowest()), 1.0, 0
    largest = torch.tensor(bits.value, dtype=torch.int32).view(torch.float32).item()
    scales = [2.0**last.value] if largest / 2.0**last.value <= integers.MOST else []
    for scale in scales or [largest / most for most in integers.PARTS]:
        most = math.ceil(largest / scale)
        for dtype in dict.fromkeys((_narrowest(), torch.int16)):
            if most > -torch.iinfo(dtype).min:
                continue
            out = torch.empty(x.shape, dtype=dtype)
            if library.elision_integers_of(
                x.data_ptr(), count, scale, dtype == torch.int8, out.data_ptr()
            ):
                return out, scale, most
    return None


def sums(of: Summation) -> None:
    """Compute sums of integers.

    Where a chain may pass 32 bits, the slow way finds out whether it does.

    Raises:
        ValueError: an operand is not integers times one scale.
        MemoryError: there is no memory for the operands in the kernel's order.

    Warns:
        ChainOverflowWarning: a chain wrapped around.
    """
    left, right = integers_of(of.a), integers_of(of.b)
    if left is None or right is None:
        return integers.sums(of)
    (a, a_scale, a_most), (b, b_scale, b_most) = left, right
    terms = max((order.terms for order in of.order.sums), default=0)
    chain = min(of.accumulate.chunk or terms, terms)
    is_safe = chain * a_most * b_most <= torch.iinfo(torch.int32).max
    bytes_ = is_safe and a.dtype == b.dtype == torch.int8
    if not bytes_:
        a, b = a.short(), b.short()
    b = of.padded(b)
    for order in of.order.sums:
        state = shared_object.load().elision_integer_sums(
            a.data_ptr(),
            b.data_ptr(),
            of.out.data_ptr(),
            sizes(order),
            of.accumulate.chunk,
            a_scale * b_scale,
            0 if is_safe else a_most,
            bytes_,
            torch.get_num_threads(),
        )
        if state < 0:
            raise MemoryError("the native kernels ran out of memory")
        if state > 0:
            return integers.sums(of)
    return None


def _narrowest() -> torch.dtype:
    """The narrowest integers that the kernel multiplies on this machine."""
    sums_bytes = shared_object.load().elision_multiplies_bytes()
    return torch.int8 if sums_bytes else torch.int16
