# Triton compiles a language of its own, which only looks like Python to a type checker.
# pyright: reportMissingImports=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false, reportReturnType=false
"""Compaction by Triton: bit masks and places of values, by two passes and a running sum.

The first pass counts what each program has, torch adds up the counts, and the second pass
reads or writes from the place that the sum gives. The format is that of ``compaction``.
"""

import torch
import triton
import triton.language as tl

__all__ = ["compact", "ends", "spread"]

#: Bytes of the mask, of eight elements each, that a program works on (an own choice).
_BYTES = 256


@triton.jit(do_not_specialize=["size"])
def _masked(values, bits, counts, size, BYTES: tl.constexpr):
    """The mask of values that are not zero, and their number in each program."""
    b = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    byte = tl.zeros([BYTES], tl.int32)
    found = tl.zeros([BYTES], tl.int32)
    for lane in tl.static_range(8):
        e = b * 8 + lane
        there = (tl.load(values + e, e < size, 0) != 0).to(tl.int32)
        byte |= there << lane
        found += there
    tl.store(bits + b, byte.to(tl.uint8), b < (size + 7) // 8)
    tl.store(counts + tl.program_id(0), tl.sum(found, 0))


@triton.jit(do_not_specialize=["size"])
def _counted(bits, counts, size, BYTES: tl.constexpr):
    """Number of set bits that belong to an element, in each program."""
    first = tl.program_id(0).to(tl.int64) * (BYTES * 8)
    e = first + tl.arange(0, BYTES * 8)
    byte = tl.load(bits + e // 8, e < size, 0).to(tl.int32)
    set_ = (byte >> (e % 8).to(tl.int32)) & 1
    tl.store(counts + tl.program_id(0), tl.sum(set_, 0))


@triton.jit(do_not_specialize=["size"])
def _gathered(values, ends, kept, size, BYTES: tl.constexpr):
    """The values that are not zero, one after the other."""
    first = tl.program_id(0).to(tl.int64) * (BYTES * 8)
    e = first + tl.arange(0, BYTES * 8)
    value = tl.load(values + e, e < size, 0)
    there = (value != 0).to(tl.int32)
    behind = tl.load(ends + tl.program_id(0)) - tl.sum(there, 0)
    place = behind + tl.cumsum(there, 0) - 1
    tl.store(kept + place, value, there != 0)


@triton.jit(do_not_specialize=["size"])
def _scattered(bits, ends, kept, values, size, BYTES: tl.constexpr):
    """Kept values where a bit is set, zeros elsewhere."""
    first = tl.program_id(0).to(tl.int64) * (BYTES * 8)
    e = first + tl.arange(0, BYTES * 8)
    byte = tl.load(bits + e // 8, e < size, 0).to(tl.int32)
    set_ = (byte >> (e % 8).to(tl.int32)) & 1
    behind = tl.load(ends + tl.program_id(0)) - tl.sum(set_, 0)
    place = behind + tl.cumsum(set_, 0) - 1
    value = tl.load(kept + place, set_ != 0, 0)
    tl.store(values + e, value, e < size)


def _programs(size: int) -> tuple[int]:
    return (triton.cdiv(size, 8 * _BYTES),)


def compact(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bit mask of a flat tensor's elements that are not zero, and their values."""
    size = values.numel()
    if not size:
        return values.new_empty(0, dtype=torch.uint8), values
    bits = values.new_empty(-(-size // 8), dtype=torch.uint8)
    programs = _programs(size)
    counts = values.new_empty(programs, dtype=torch.int32)
    with torch.cuda.device_of(values):
        _masked[programs](values, bits, counts, size, BYTES=_BYTES)
        ends = counts.cumsum(0)
        kept = values.new_empty(int(ends[-1]))
        _gathered[programs](values, ends, kept, size, BYTES=_BYTES)
    return bits, kept


def ends(bits: torch.Tensor, size: int) -> torch.Tensor:
    """Bits of a mask of ``size`` elements that are set, up to the end of each program's."""
    programs = _programs(max(size, 1))
    counts = bits.new_empty(programs, dtype=torch.int32)
    with torch.cuda.device_of(bits):
        _counted[programs](bits, counts, size, BYTES=_BYTES)
    return counts.cumsum(0)


def spread(
    bits: torch.Tensor, ends: torch.Tensor, kept: torch.Tensor, size: int
) -> torch.Tensor:
    """The tensor that :func:`compact` took apart.

    Args:
        bits: its mask.
        ends: of :func:`ends`; the last of them is the number of values.
        kept: its values.
        size: number of its elements.
    """
    values = kept.new_empty(size)
    if size:
        with torch.cuda.device_of(kept):
            _scattered[_programs(size)](bits, ends, kept, values, size, BYTES=_BYTES)
    return values
