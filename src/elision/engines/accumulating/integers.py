"""Sums of whole numbers in 32 bits: chains, as multiply-and-add units of integers do.

An operand is read as integers of at most 16 bits times one scale, which is found from its
values: DFP has a power of two, int8 and int16 a part of the largest magnitude. A chain of
terms is summed exactly, modulo 2^32, and goes on as float32: the sum times both scales.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.engines.accumulating.oracle import lowered, promoted, written
from elision.engines.accumulating.summation import Summation

__all__ = [
    "MOST",
    "PARTS",
    "ChainOverflowWarning",
    "Scaled",
    "integers_of",
    "sums",
]

#: The largest magnitude of a 16-bit integer.
MOST = 2**15

#: Largest integers of symmetric formats whose scale is a part of the largest magnitude.
PARTS = (127, 32767)


class ChainOverflowWarning(UserWarning):
    """A chain of integers passed 32 bits and wrapped around.

    Example:
        >>> issubclass(ChainOverflowWarning, UserWarning)
        True
    """


@dataclass(frozen=True, eq=False)
class Scaled:
    """An operand as whole numbers times one scale.

    Attributes:
        integers: float64, of at most 16 bits.
        scale: what one of them is worth.

    Example:
        >>> found = integers_of(torch.tensor([0.75, -0.5]))
        >>> found.integers.tolist(), found.scale
        ([3.0, -2.0], 0.25)
    """

    integers: Tensor
    scale: float


class NotFiniteError(ValueError):
    """An operand holds an infinity or a NaN, which is no integer at any scale.

    Example:
        >>> try:
        ...     integers_of(torch.tensor([torch.nan]))
        ... except NotFiniteError as error:
        ...     print(error)
        a sum in int32 needs finite operands, got infinity or NaN
    """


def integers_of(x: Tensor) -> Scaled:
    """A float32 tensor as integers of at most 16 bits times one scale.

    The scale is the largest power of two of which all values are multiples; else, of
    values as int8 and int16 leave them, the largest magnitude over 127 or 32767, and
    the values are that times a whole number to the last bit of float32.

    Raises:
        NotFiniteError: a value is infinite or NaN.
        ValueError: there is no such scale.
    """
    values = x.double()
    largest = values.abs().max().item() if x.numel() else 0.0
    if not math.isfinite(largest):
        raise NotFiniteError(
            "a sum in int32 needs finite operands, got infinity or NaN"
        )
    if largest == 0:
        return Scaled(values, 1.0)
    fraction, exponent = torch.frexp(values)
    whole = (fraction * 2**24).long()  # a float32's 24 bits
    unit = torch.where(
        whole != 0, (whole & -whole).double().log2() + exponent, torch.inf
    )
    scale = 2.0 ** (unit.min().item() - 24)
    if largest / scale <= MOST:
        return Scaled(values / scale, scale)
    for most in PARTS:
        scale = largest / most
        integers = torch.round(values / scale)
        if bool(((integers * scale - values).abs() <= values.abs() * 2.0**-22).all()):
            return Scaled(integers, scale)
    raise ValueError(
        "a sum in int32 needs operands that are integers of at most 16 bits times one "
        "scale; give the operand a Cast to such a format (dfp16, int8)"
    )


def sums(of: Summation) -> None:
    """Compute sums of integers.

    Raises:
        ValueError: an operand is not integers times one scale.

    Warns:
        ChainOverflowWarning: a chain wrapped around.
    """
    left, right = integers_of(of.a), integers_of(of.b)
    worth = left.scale * right.scale
    b = of.padded(right.integers)
    for order in of.order.sums:
        # Sums of 2^22 products of 31 bits are exact in float64.
        x, y = lowered(order, left.integers, b)
        size = of.accumulate.chunk or order.terms
        chunks = (
            (_wrapped(x[:, :, t : t + size], y[:, t : t + size]) * worth).float()
            for t in range(0, order.terms, size)
        )
        written(order, of.out, promoted(chunks, of.accumulate))


def _wrapped(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` modulo 2^32, in [−2^31, 2^31)."""
    exact = a @ b
    wrapped = torch.remainder(exact + 2.0**31, 2.0**32) - 2.0**31
    if not torch.equal(exact, wrapped):
        warnings.warn(
            "a sum of integers passed 32 bits and wrapped around, as the hardware's does; "
            "shorter chunks avoid it",
            ChainOverflowWarning,
            stacklevel=2,
        )
    return wrapped
