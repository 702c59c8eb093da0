"""Group quantisation on the CPU, one pass over the tensor; see ``group`` for the rule.

The loops are written for LLVM's vectoriser: slices instead of computed indices (which
would have to be checked for wrapping around), and two 16-bit uniforms out of every
32-bit hash. The kernels release the interpreter's lock, so that threads can share a
tensor's groups.
"""

import numba
import numpy as np

from elision.common.machine_code import compiled_once

__all__ = ["dequantise", "mask", "quantise"]

_U32 = np.uint32
_F32 = np.float32
_LARGEST = _F32(np.finfo(np.float32).max)
#: Smallest step, whose inverse is far from overflowing.
_LEAST = 2.0**-100
# Values are finite and the sign of zero does not matter; no contraction to fused
# multiply-adds, so that the result is that of the torch version, bit for bit.
_FASTMATH = {"nnan", "ninf", "nsz", "reassoc"}


@numba.njit(inline="always")
def _hash(h):
    """A bijection of 32 bits (C. Wellons, "Prospecting for hash functions", 2018)."""
    h = _U32(h ^ _U32(h >> _U32(16)))
    h = _U32(h * _U32(0x7FEB352D))
    h = _U32(h ^ _U32(h >> _U32(15)))
    h = _U32(h * _U32(0x846CA68B))
    return _U32(h ^ _U32(h >> _U32(16)))


@numba.njit(inline="always")
def _uniforms(number):
    """Two uniforms of (0, 1) from one hash."""
    h = _hash(number)
    u = (_F32(np.int32(h & _U32(0xFFFF))) + _F32(0.5)) * _F32(2**-16)
    v = (_F32(np.int32(h >> _U32(16))) + _F32(0.5)) * _F32(2**-16)
    return u, v


@numba.njit(inline="always")
def _round_down(value):
    """Round the one element of an array to bfloat16, towards minus infinity."""
    word = value.view(_U32)
    if word[0] >> _U32(31) and word[0] & _U32(0xFFFF):
        word[0] += _U32(0x10000)
    word[0] &= _U32(0xFFFF0000)


@compiled_once(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def quantise(x, group, bits, seed, random, support, codes, low, step):
    """Quantise full groups of ``x`` into packed ``codes``, ``low`` and ``step``.

    ``seed`` numbers the first hash; a group takes ``group // 2`` of them. ``low`` and
    ``step`` are float32 with values of bfloat16.
    """
    groups = x.size // group
    half = group // 2
    bytes_per_group = group // 8 * bits
    first = 1 if support else 0
    levels = (1 << bits) - 1 - first
    q = np.empty(group, np.uint8)
    rounded = np.empty(2, _F32)
    for g in range(groups):
        values = x[g * group : (g + 1) * group]
        lowest, highest = _LARGEST, _F32(-_LARGEST)
        if support:
            for i in range(group):
                v = values[i]
                w = v if v > 0 else _LARGEST
                lowest = w if w < lowest else lowest
                highest = v if v > highest else highest
            if highest <= 0:
                lowest, highest = _F32(0), _F32(0)
        else:
            for i in range(group):
                v = values[i]
                lowest = v if v < lowest else lowest
                highest = v if v > highest else highest
        rounded[0] = lowest
        _round_down(rounded[:1])
        lowest = rounded[0]
        rounded[1] = -max((highest - lowest) / _F32(levels), _F32(_LEAST))
        _round_down(rounded[1:])
        width = -rounded[1] if highest > lowest else _F32(0)
        inverse = _F32(1) / width if width > 0 else _F32(0)
        low[g] = lowest
        step[g] = width
        start = _U32(_U32(seed) + _U32(g) * _U32(half))
        left, right = values[:half], values[half:]
        q_left, q_right = q[:half], q[half:]
        for i in range(half):
            u = v = _F32(0.5)
            if random:
                u, v = _uniforms(_U32(start + _U32(i)))
            a = np.int32((left[i] - lowest) * inverse + u)
            b = np.int32((right[i] - lowest) * inverse + v)
            a = min(a, np.int32(levels)) + np.int32(first)
            b = min(b, np.int32(levels)) + np.int32(first)
            if support:
                a = a if left[i] > 0 else np.int32(0)
                b = b if right[i] > 0 else np.int32(0)
            q_left[i] = np.uint8(a)
            q_right[i] = np.uint8(b)
        _pack(q, bits, codes[g * bytes_per_group : (g + 1) * bytes_per_group])


@numba.njit(inline="always")
def _pack(q, bits, out):
    """Store the codes of one group, the binary digits of ``bits`` one after another."""
    shift = 0
    at = 0
    for width in (8, 4, 2, 1):
        if bits & width:
            lanes = 8 // width
            count = q.size // lanes
            section = out[at : at + count]
            limit = np.uint8((1 << width) - 1)
            if lanes == 1:
                section[:] = q
            else:
                section[:] = (q[:count] >> np.uint8(shift)) & limit
                for lane in range(1, lanes):
                    part = q[lane * count : (lane + 1) * count]
                    for i in range(count):
                        section[i] |= np.uint8(
                            ((part[i] >> np.uint8(shift)) & limit)
                            << np.uint8(lane * width)
                        )
            shift += width
            at += count


@numba.njit(inline="always")
def _unpack(stored, bits, q):
    """The codes of one group."""
    shift = 0
    at = 0
    q[:] = 0
    for width in (8, 4, 2, 1):
        if bits & width:
            lanes = 8 // width
            count = q.size // lanes
            section = stored[at : at + count]
            limit = np.uint8((1 << width) - 1)
            for lane in range(lanes):
                part = q[lane * count : (lane + 1) * count]
                right, left = np.uint8(lane * width), np.uint8(shift)
                for i in range(count):
                    part[i] |= ((section[i] >> right) & limit) << left
            shift += width
            at += count


@compiled_once(nogil=True, fastmath=_FASTMATH)
def dequantise(codes, group, bits, seed, dithered, support, low, step, out):
    """Restore full groups into ``out``; ``seed`` as it was for :func:`quantise`."""
    groups = out.size // group
    half = group // 2
    bytes_per_group = group // 8 * bits
    q = np.empty(group, np.uint8)
    shift = np.zeros(group, _F32)
    first = _F32(1 if support else 0)
    for g in range(groups):
        _unpack(codes[g * bytes_per_group : (g + 1) * bytes_per_group], bits, q)
        values = out[g * group : (g + 1) * group]
        lowest, width = low[g], step[g]
        if dithered:
            start = _U32(_U32(seed) + _U32(g) * _U32(half))
            left, right = shift[:half], shift[half:]
            for i in range(half):
                u, v = _uniforms(_U32(start + _U32(i)))
                left[i] = _F32(0.5) - u
                right[i] = _F32(0.5) - v
        for i in range(group):
            v = (_F32(np.int32(q[i])) - first + shift[i]) * width + lowest
            values[i] = v if q[i] > 0 or not support else _F32(0)


@compiled_once(nogil=True)
def mask(codes, group, bits, out):
    """1 where the code is not 0, else 0, into ``out``."""
    groups = out.size // group
    bytes_per_group = group // 8 * bits
    q = np.empty(group, np.uint8)
    for g in range(groups):
        _unpack(codes[g * bytes_per_group : (g + 1) * bytes_per_group], bits, q)
        values = out[g * group : (g + 1) * group]
        for i in range(group):
            values[i] = _F32(1) if q[i] > 0 else _F32(0)
