# Triton compiles a language of its own, which only looks like Python to a type checker.
# pyright: reportMissingImports=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false, reportReturnType=false
"""One bit per element by Triton; the format is that of ``bits.pack_bits``."""

import torch
import triton
import triton.language as tl

__all__ = ["pack", "unpack"]

#: Bytes of a packed mask that a program writes or reads (an own choice).
_BYTES = 512


@triton.jit(do_not_specialize=["count"])
def _pack(mask, packed, count, BYTES: tl.constexpr):
    b = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    byte = tl.zeros([BYTES], tl.int32)
    for bit in tl.static_range(8):
        e = b * 8 + bit
        byte |= tl.load(mask + e, e < count, 0).to(tl.int32) << bit
    tl.store(packed + b, byte.to(tl.uint8), b < (count + 7) // 8)


@triton.jit(do_not_specialize=["count"])
def _unpack(packed, mask, count, BYTES: tl.constexpr):
    e = tl.program_id(0).to(tl.int64) * (BYTES * 8) + tl.arange(0, BYTES * 8)
    byte = tl.load(packed + e // 8, e < count, 0).to(tl.int32)
    there = (byte >> (e % 8).to(tl.int32)) & 1
    tl.store(mask + e, there.to(tl.uint8), e < count)


def pack(mask: torch.Tensor) -> torch.Tensor:
    """A boolean tensor ``(count,)``, contiguous, in ``ceil(count / 8)`` bytes."""
    count = mask.numel()
    packed = mask.new_empty(-(-count // 8), dtype=torch.uint8)
    if count:
        programs = (triton.cdiv(count, 8 * _BYTES),)
        with torch.cuda.device_of(mask):
            _pack[programs](mask.view(torch.uint8), packed, count, BYTES=_BYTES)
    return packed


def unpack(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The boolean tensor ``(count,)`` that :func:`pack` packed."""
    mask = packed.new_empty(count, dtype=torch.uint8)
    if count:
        programs = (triton.cdiv(count, 8 * _BYTES),)
        with torch.cuda.device_of(packed):
            _unpack[programs](packed, mask, count, BYTES=_BYTES)
    return mask.view(torch.bool)
