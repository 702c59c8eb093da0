"""Ordered sums, term after term, in torch: slow and meant to be obviously right.

A loop over the terms, each step on all outputs at once. Products and their sums are exact
in float64, rounded once to float32 and then to the format; the formats round by their own
slow arithmetic. Runs on any device.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from elision.engines.accumulating.summation import Summation
from elision.formats import FORMATS, Floating
from elision.formats.accumulate import Accumulate
from elision.products.terms import OrderedSum

__all__ = ["fma", "lowered", "promoted", "quick_sums", "random_bits", "sums", "written"]

_LOW = 0xFFFF_FFFF

#: 2^32 over the golden ratio: spreads the terms' places before they are hashed.
_GOLDEN = 0x9E37_79B9

#: Rounds the sum of a chunk at a term; given is the index of the term.
Rounded = Callable[[Tensor, int], Tensor]


def sums(of: Summation) -> None:
    """Compute sums, one addition after another; of any format but ``"int32"``."""
    b = of.padded(of.b)
    for order in of.order.sums:
        left, right = lowered(order, of.a, b)
        rounded = _rounding(order, of.accumulate, of.key, b.device)
        chunks = (
            _chunk(left, right, first, last, rounded, of.accumulate)
            for first, last in _chunks(order.terms, of.accumulate.chunk)
        )
        written(order, of.out, promoted(chunks, of.accumulate))


def quick_sums(of: Summation) -> None:
    """:func:`sums`, but a chunk that is rounded once is one matrix product of torch's.

    Its additions inside a chunk then have torch's order, not the stated one.
    """
    if of.accumulate.rounds != "chunk":
        return sums(of)
    b = of.padded(of.b)
    for order in of.order.sums:
        left, right = lowered(order, of.a, b)
        rounded = _rounding(order, of.accumulate, of.key, b.device)
        chunks = (
            rounded(left[:, :, first:last] @ right[:, first:last], last - 1)
            for first, last in _chunks(order.terms, of.accumulate.chunk)
        )
        written(order, of.out, promoted(chunks, of.accumulate))
    return None


def lowered(order: OrderedSum, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The operands as matrices, ``(groups, M, T)`` and ``(groups, T, N)``."""
    places = order.a_places().to(a.device), order.b_places().to(b.device)
    return a.flatten()[places[0]], b.flatten()[places[1]]


def promoted(chunks: Iterator[Tensor], accumulate: Accumulate) -> Tensor:
    """The sum of the chunks' sums: in the wide format, from time to time in float32."""
    wide_format = FORMATS[accumulate.wide]
    wide = total = torch.zeros(())
    for index, chunk in enumerate(chunks):
        if index == 0:
            wide = total = torch.zeros_like(chunk)
        if accumulate.wide_chunk and index and index % accumulate.wide_chunk == 0:
            total, wide = total + wide, torch.zeros_like(wide)
        wide = wide + chunk
        if accumulate.wide != "fp32":
            wide = wide_format.round(wide) + 0.0
    return total + wide


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a·b + c`` of float32 numbers, rounded once, to float32.

    In float64 the product is exact and the sum is rounded *to odd*: an inexact result
    gets the last bit 1, so that the rounding to float32 cannot take it for a tie (Boldo
    and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).

    Example:
        >>> one, tiny = torch.tensor(1.0), torch.tensor(2.0**-30)
        >>> fma(one + 2.0**-23, one + 2.0**-23, tiny) == 1 + 2.0**-22
        tensor(True)
    """
    product, added = a.double() * b.double(), c.double()
    total = product + added
    shadow = total - product
    error = (product - (total - shadow)) + (added - shadow)  # Knuth's two-sum: exact
    bits = total.view(torch.int64)
    towards = torch.where((error > 0) == (total > 0), 1, -1)
    inexact_even = (error.abs() > 0) & (bits & 1 == 0)
    return torch.where(inexact_even, bits + towards, bits).view(torch.float64).float()


def random_bits(places: Tensor, term: int, key: int) -> Tensor:
    """32 random bits of a term of every output, int64.

    Args:
        places: flat index of each output in the product's result.
        term: index of the term.
        key: of the product in a step.
    """
    start = _hashed((places & _LOW) ^ key)
    return _hashed((start + term * _GOLDEN) & _LOW)


def _chunks(terms: int, chunk: int) -> Iterator[tuple[int, int]]:
    """First term and the one behind the last of every chunk."""
    size = chunk or terms
    return ((t, min(t + size, terms)) for t in range(0, terms, size))


def _chunk(
    a: Tensor, b: Tensor, first: int, last: int, rounded: Rounded, how: Accumulate
) -> Tensor:
    """The sum of one chunk of terms."""
    groups, rows, columns = a.shape[0], a.shape[1], b.shape[2]
    s = c = a.new_zeros(groups, rows, columns)
    for t in range(first, last):
        x, y = a[:, :, t, None], b[:, None, t, :]
        if how.compensated:
            y = rounded(fma(x, y, -c), t)
            new = rounded(s + y, t)
            s, c = new, rounded(rounded(new - s, t) - y, t)
        elif how.rounds == "addition":
            s = rounded(fma(x, y, s), t)
        else:
            s = fma(x, y, s)
    return rounded(s, last - 1) if how.rounds == "chunk" else s


def _rounding(
    order: OrderedSum, how: Accumulate, key: int, device: torch.device
) -> Rounded:
    format = FORMATS[how.format]
    assert isinstance(format, Floating)
    if how.format == "fp32":
        return lambda x, term: x
    if how.rounding != "stochastic":
        # There is one zero: adding it takes the sign off.
        return lambda x, term: format.round(x, how.rounding) + 0.0
    places = order.out_places().to(device)
    return lambda x, term: _stochastic(format, x, random_bits(places, term, key))


def _stochastic(format: Floating, x: Tensor, bits: Tensor) -> Tensor:
    """Up or down: up if the bits' upper 24, as a fraction, are below the rest."""
    magnitude = x.double().abs()
    exponent = torch.frexp(magnitude).exponent - 1
    lowest = 1 - format.bias
    power = exponent.clamp(min=lowest) - format.fraction_bits
    if not format.subnormals:
        power = torch.where(exponent < lowest, lowest, power)
    step = torch.ldexp(torch.ones_like(magnitude), power)
    below = torch.floor(magnitude / step)
    up = (bits >> 8) < (magnitude / step - below) * 2**24
    value = torch.where(magnitude.isfinite(), (below + up) * step, magnitude)
    # On the grid by now: what is left to do is the end of the range.
    return format.round(value.copysign(x)).float() + 0.0


def written(order: OrderedSum, out: Tensor, values: Tensor) -> None:
    """Write values ``(groups, M, N)`` where an ordered sum has its results."""
    out.view(-1)[order.out_places().to(out.device)] = values


def _hashed(x: Tensor) -> Tensor:
    """``lowbias32`` of Wellons, "Prospecting for Hash Functions", 2018, in int64."""
    x = (x ^ (x >> 16)) * 0x7FEB_352D & _LOW
    x = (x ^ (x >> 15)) * 0x846C_A68B & _LOW
    return x ^ (x >> 16)
