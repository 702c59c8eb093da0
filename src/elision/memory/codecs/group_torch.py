"""Group quantisation in plain torch: what runs on a GPU, and the kernels' oracle.

Same arguments and, bit for bit, same results as ``group_kernels``; tensors instead of
arrays. 32-bit arithmetic is done in 64 bits and cut off.
"""

import torch

__all__ = ["dequantise", "hash_words", "mask", "quantise", "round_down"]

_WORD = 0xFFFFFFFF
#: Smallest step, whose inverse is far from overflowing.
_LEAST = 2.0**-100


def hash_words(h: torch.Tensor) -> torch.Tensor:
    """A bijection of 32-bit words, held in 64 bits; see ``group_kernels``."""
    h = h ^ (h >> 16)
    h = (h * 0x7FEB352D) & _WORD
    h = h ^ (h >> 15)
    h = (h * 0x846CA68B) & _WORD
    return h ^ (h >> 16)


def _uniforms(groups: int, group: int, seed: int, device: torch.device) -> torch.Tensor:
    """One uniform of [0, 1) per element, two out of every hash."""
    count = torch.arange(groups * group // 2, device=device)
    hashes = hash_words((count + seed) & _WORD).view(groups, group // 2)
    words = torch.cat([hashes & 0xFFFF, hashes >> 16], 1)
    return (words.to(torch.float32) + 0.5) * 2.0**-16


def round_down(values: torch.Tensor) -> torch.Tensor:
    """Float32 values rounded to bfloat16, towards minus infinity."""
    words = values.contiguous().view(torch.int32)
    words = words + torch.where((words < 0) & (words & 0xFFFF != 0), 0x10000, 0)
    return (words & -0x10000).to(torch.int32).view(torch.float32)


def quantise(
    x: torch.Tensor,
    group: int,
    bits: int,
    seed: int,
    random: bool,
    support: bool,
    codes: torch.Tensor,
    low: torch.Tensor,
    step: torch.Tensor,
) -> None:
    """Quantise full groups of ``x`` into packed ``codes``, ``low`` and ``step``."""
    values = x.view(-1, group)
    first = 1 if support else 0
    levels = 2**bits - 1 - first
    highest = values.amax(1)
    if support:
        lowest = values.where(values > 0, torch.inf).amin(1)
        lowest = lowest.where(highest > 0, 0)
        highest = highest.clamp(min=0)
    else:
        lowest = values.amin(1)
    lowest = round_down(lowest)
    # By a tensor: a GPU would multiply by the inverse of a number, which is rounded.
    share = (highest - lowest) / highest.new_full((), levels)
    width = -round_down(-share.clamp(min=_LEAST))
    width = width.where(highest > lowest, 0)
    low.copy_(lowest)
    step.copy_(width)
    inverse = torch.where(width > 0, 1 / width, 0)[:, None]
    noise = _uniforms(len(values), group, seed, x.device) if random else 0.5
    q = ((values - lowest[:, None]) * inverse + noise).to(torch.int32)
    q = q.clamp(max=levels) + first
    if support:
        q = q.where(values > 0, 0)
    codes.copy_(_pack(q.to(torch.uint8), bits))


def _sections(bits: int, group: int):
    """Width, shift, first byte and bytes of each section of a packed group."""
    shift = at = 0
    for width in (8, 4, 2, 1):
        if bits & width:
            count = group * width // 8
            yield width, shift, at, count
            shift += width
            at += count


def _pack(q: torch.Tensor, bits: int) -> torch.Tensor:
    groups, group = q.shape
    out = q.new_zeros(groups, group // 8 * bits)
    for width, shift, at, count in _sections(bits, group):
        lanes = (q >> shift & 2**width - 1).view(groups, 8 // width, count)
        for lane in range(8 // width):
            out[:, at : at + count] |= lanes[:, lane] << lane * width
    return out.view(-1)


def _unpack(codes: torch.Tensor, group: int, bits: int) -> torch.Tensor:
    stored = codes.view(-1, group // 8 * bits)
    q = stored.new_zeros(len(stored), group)
    for width, shift, at, count in _sections(bits, group):
        for lane in range(8 // width):
            code = stored[:, at : at + count] >> lane * width & 2**width - 1
            q[:, lane * count : (lane + 1) * count] |= code << shift
    return q


def dequantise(
    codes: torch.Tensor,
    group: int,
    bits: int,
    seed: int,
    dithered: bool,
    support: bool,
    low: torch.Tensor,
    step: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Restore full groups into ``out``; ``seed`` as it was for :func:`quantise`."""
    q = _unpack(codes, group, bits)
    counts = q.to(torch.float32) - (1 if support else 0)
    if dithered:
        counts += 0.5 - _uniforms(len(q), group, seed, q.device)
    values = counts * step[:, None] + low[:, None]
    if support:
        values = values.where(q > 0, 0)
    out.copy_(values.view(-1))


def mask(codes: torch.Tensor, group: int, bits: int, out: torch.Tensor) -> None:
    """1 where the code is not 0, else 0, into ``out``."""
    out.copy_((_unpack(codes, group, bits) > 0).view(-1))
