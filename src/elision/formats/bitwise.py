"""Rounding to nearest in torch's float32 arithmetic: for where there is no kernel.

The bits of :meth:`Format.round`, some ten times faster than its float64.
"""

import torch
from torch import Tensor

from elision.formats.base import Format
from elision.formats.floating import Floating
from elision.formats.native_parameters import NARROW, element_of

__all__ = ["nearest"]

_INFINITY = 0x7F80_0000


def nearest(x: Tensor, format: Format) -> Tensor | None:
    """The nearest values, ties to even; None for a format that this cannot round to.

    That is one without a sign or with one zero, and those that the kernels leave out.

    Args:
        x: float32.
        format: of the values.

    Example:
        >>> from elision.formats import FORMATS
        >>> nearest(torch.tensor([0.3, 1e9]), FORMATS["fp8-e5m2"]).tolist()
        [0.3125, inf]
    """
    element = element_of(format, "nearest")
    if element is None or not isinstance(format, Floating):
        return None
    if not (element.negative and element.minus_zero):
        return None
    size = x.abs()
    bits = size.view(torch.int32)
    drop = 23 - element.fraction
    if element.kind == NARROW:
        # 2^23 steps of the value: added and taken away again, they round to a step.
        exponent = bits & _INFINITY
        lowest, top = (_exponent(v) for v in (2.0**element.lowest, element.largest))
        steps = exponent.clamp_(lowest, top).add_(drop << 23).view(torch.float32)
        if element.below != element.fraction:  # below the smallest normal: it or zero
            flushed = 2.0 ** (element.lowest + 23)
            steps = torch.where(bits < lowest, flushed, steps)
        found = (size + steps).sub_(steps)
    elif drop:
        # The step is a bit of the float; what is added to the bits below carries.
        odd = (bits >> drop).bitwise_and_(1)
        found = odd.add_(bits).add_((1 << (drop - 1)) - 1)
        found = found.bitwise_and_(-(1 << drop)).view(torch.float32)
        found = torch.where(x.isnan(), x, found)
    else:
        found = size
    beyond = torch.where(found > element.largest, element.beyond, found)
    return beyond.copysign_(x)


def _exponent(value: float) -> int:
    """The bits of a float32's exponent."""
    return int(torch.tensor(value).view(torch.int32)) & _INFINITY
