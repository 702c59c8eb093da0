"""Chains of integers by the native kernel: 16 bits times 16 bits, two terms a word."""

import ctypes
import math

import torch
from torch import Tensor

from elision.engines.accumulating import integers
from elision.engines.accumulating.kernel import sizes
from elision.formats.accumulate import INT32, Accumulate
from elision.native import shared_object
from elision.products.terms import OrderedSum

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
    """A contiguous float32 tensor as int16, what one of them is worth, and the largest.

    The same integers and scale as :func:`elision.engines.accumulating.integers.integers_of`
    finds; None where that does, or where an integer is no int16.

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
    out = torch.empty(x.shape, dtype=torch.int16)
    if not bits.value:
        return out.zero_(), 1.0, 0
    largest = torch.tensor(bits.value, dtype=torch.int32).view(torch.float32).item()
    scales = [2.0**last.value] if largest / 2.0**last.value <= integers.MOST else []
    for scale in scales or [largest / most for most in integers.PARTS]:
        if library.elision_integers_of(x.data_ptr(), count, scale, out.data_ptr()):
            return out, scale, math.ceil(largest / scale)
    return None


def sums(
    order: OrderedSum,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    accumulate: Accumulate,
    key: int,
) -> None:
    """Compute ordered sums of integers; arguments are those of :func:`oracle.sums`.

    Where a chain may pass 32 bits, the slow way finds out whether it does.

    Raises:
        ValueError: an operand is not integers times one scale.
        MemoryError: there is no memory for the operands in the kernel's order.

    Warns:
        ChainOverflowWarning: a chain wrapped around.
    """
    left, right = integers_of(a), integers_of(b)
    if left is None or right is None:
        return integers.sums(order, a, b, out, accumulate, key)
    state = shared_object.load().elision_integer_sums(
        left[0].data_ptr(),
        right[0].data_ptr(),
        out.data_ptr(),
        sizes(order),
        accumulate.chunk,
        left[1] * right[1],
        left[2],
        torch.get_num_threads(),
    )
    if state < 0:
        raise MemoryError("the native kernels ran out of memory")
    if state > 0:
        return integers.sums(order, a, b, out, accumulate, key)
    return None
