# Triton compiles a language of its own, which only looks like Python to a type checker.
# pyright: reportMissingImports=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false, reportReturnType=false
"""Group quantisation by Triton, one pass over the tensor; see ``group`` for the rule.

Same arguments and, bit for bit, same results as ``group_torch``; values and results may be
of any floating dtype, which is converted on the way. A program works on as many groups as
make a tile of :data:`TILE` elements. Codes are not moved between lanes: a section of a
packed group (see ``group_torch``) takes each of its bytes from elements that lie a fixed
distance apart, which are loaded once more, from the cache.
"""

import torch
import triton
import triton.language as tl

from elision.memory.codecs.on_gpu.launch import EXACT, word

__all__ = ["dequantise", "mask", "quantise"]

#: Elements of a tile: 8 or 16 registers of a thread hold its values (an own choice).
TILE = 1024


@triton.jit
def _hash(h):
    """A bijection of 32 bits; see ``group_kernels``."""
    h = h ^ (h >> 16)
    h = h * 0x7FEB352D
    h = h ^ (h >> 15)
    h = h * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def _uniforms(g, e, seed, GROUP: tl.constexpr):
    """The uniform of element ``e`` of group ``g``: half a hash of 32 bits."""
    HALF: tl.constexpr = GROUP // 2
    upper = e >= HALF
    place = tl.where(upper, e - HALF, e).to(tl.uint32)
    number = seed.to(tl.uint32) + g.to(tl.uint32) * HALF + place
    h = _hash(number)
    word = tl.where(upper, h >> 16, h & 0xFFFF)
    return (word.to(tl.int32).to(tl.float32) + 0.5) * 0.0000152587890625  # 2^-16


@triton.jit
def _round_down(value):
    """Float32 rounded to bfloat16, towards minus infinity."""
    word = value.to(tl.int32, bitcast=True)
    word = word + tl.where((word < 0) & ((word & 0xFFFF) != 0), 0x10000, 0)
    return (word & -0x10000).to(tl.float32, bitcast=True)


@triton.jit
def _code(
    v,
    g,
    e,
    lowest,
    inverse,
    seed,
    GROUP: tl.constexpr,
    LEVELS: tl.constexpr,
    RANDOM: tl.constexpr,
    SUPPORT: tl.constexpr,
):
    """Codes of values ``v``, elements ``e`` of the groups ``g``."""
    noise = 0.5
    if RANDOM:
        noise = _uniforms(g, e, seed, GROUP)
    q = ((v - lowest) * inverse + noise).to(tl.int32)
    q = tl.minimum(q, LEVELS)
    if SUPPORT:
        q = tl.where(v > 0, q + 1, 0)
    return q


@triton.jit
def _store_section(
    x,
    codes,
    g,
    there,
    lowest,
    inverse,
    seed,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    RANDOM: tl.constexpr,
    SUPPORT: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write the section of a width of the packed groups; the widest is the first."""
    LEVELS: tl.constexpr = (1 << BITS) - 1 - (1 if SUPPORT else 0)
    SHIFT: tl.constexpr = BITS & ~(2 * WIDTH - 1)
    COUNT: tl.constexpr = GROUP * WIDTH // 8
    STORED: tl.constexpr = GROUP // 8 * BITS
    AT: tl.constexpr = GROUP // 8 * SHIFT
    BYTES: tl.constexpr = COLUMNS * WIDTH // 8
    b = tl.arange(0, BYTES)[None, :]
    inside = there[:, None] & (b < COUNT)
    byte = tl.zeros(inside.shape, tl.int32)
    for lane in tl.static_range(8 // WIDTH):
        e = b + lane * COUNT
        v = tl.load(x + g * GROUP + e, inside, 0).to(tl.float32)
        q = _code(v, g, e, lowest, inverse, seed, GROUP, LEVELS, RANDOM, SUPPORT)
        byte |= ((q >> SHIFT) & ((1 << WIDTH) - 1)) << (lane * WIDTH)
    tl.store(codes + g * STORED + AT + b, byte.to(tl.uint8), inside)


@triton.jit(do_not_specialize=["groups", "seed"])
def _quantise(
    x,
    codes,
    low,
    step,
    groups,
    seed,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    RANDOM: tl.constexpr,
    SUPPORT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    FIRST: tl.constexpr = 1 if SUPPORT else 0
    LEVELS: tl.constexpr = (1 << BITS) - 1 - FIRST
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < groups
    g = row[:, None]
    e = tl.arange(0, COLUMNS)[None, :]
    within = there[:, None] & (e < GROUP)
    v = tl.load(x + g * GROUP + e, within, 0).to(tl.float32)
    highest = tl.max(tl.where(within, v, float("-inf")), 1)
    if SUPPORT:
        lowest = tl.min(tl.where(within & (v > 0), v, float("inf")), 1)
        lowest = tl.where(highest > 0, lowest, 0.0)
        highest = tl.maximum(highest, 0.0)
    else:
        lowest = tl.min(tl.where(within, v, float("inf")), 1)
    # A row that is not there has no range, and no bits of one.
    highest = tl.where(there, highest, 0.0)
    lowest = _round_down(tl.where(there, lowest, 0.0))
    share = tl.div_rn(highest - lowest, tl.full([ROWS], LEVELS, tl.float32))
    width = -_round_down(-tl.maximum(share, 7.888609052210118e-31))  # 2^-100
    width = tl.where(highest > lowest, width, 0.0)
    tl.store(low + row, lowest, there)
    tl.store(step + row, width, there)
    one = tl.full([ROWS], 1.0, tl.float32)
    inverse = tl.where(width > 0, tl.div_rn(one, tl.where(width > 0, width, 1.0)), 0.0)
    lowest, inverse = lowest[:, None], inverse[:, None]
    for i in tl.static_range(4):
        if BITS & (8 >> i):
            _store_section(
                x,
                codes,
                g,
                there,
                lowest,
                inverse,
                seed,
                GROUP,
                BITS,
                RANDOM,
                SUPPORT,
                COLUMNS,
                8 >> i,
            )


@triton.jit
def _section_code(
    codes, g, e, within, GROUP: tl.constexpr, BITS: tl.constexpr, WIDTH: tl.constexpr
):
    """The part of the codes of elements ``e`` that the section of a width holds."""
    SHIFT: tl.constexpr = BITS & ~(2 * WIDTH - 1)
    COUNT: tl.constexpr = GROUP * WIDTH // 8
    STORED: tl.constexpr = GROUP // 8 * BITS
    AT: tl.constexpr = GROUP // 8 * SHIFT
    lane = e // COUNT
    place = codes + g * STORED + AT + (e - lane * COUNT)
    byte = tl.load(place, within, 0).to(tl.int32)
    return ((byte >> (lane * WIDTH)) & ((1 << WIDTH) - 1)) << SHIFT


@triton.jit
def _stored_code(codes, g, e, within, GROUP: tl.constexpr, BITS: tl.constexpr):
    """The codes of elements ``e`` of the groups ``g``."""
    q = tl.zeros(within.shape, tl.int32)
    for i in tl.static_range(4):
        if BITS & (8 >> i):
            q |= _section_code(codes, g, e, within, GROUP, BITS, 8 >> i)
    return q


@triton.jit(do_not_specialize=["groups", "seed"])
def _dequantise(
    codes,
    low,
    step,
    out,
    groups,
    seed,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    DITHERED: tl.constexpr,
    SUPPORT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    FIRST: tl.constexpr = 1.0 if SUPPORT else 0.0
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < groups
    g = row[:, None]
    e = tl.arange(0, COLUMNS)[None, :]
    within = there[:, None] & (e < GROUP)
    q = _stored_code(codes, g, e, within, GROUP, BITS)
    counts = q.to(tl.float32) - FIRST
    if DITHERED:
        counts += 0.5 - _uniforms(g, e, seed, GROUP)
    lowest = tl.load(low + row, there, 0.0)[:, None]
    width = tl.load(step + row, there, 0.0)[:, None]
    values = counts * width + lowest
    if SUPPORT:
        values = tl.where(q > 0, values, 0.0)
    tl.store(out + g * GROUP + e, values.to(out.dtype.element_ty), within)


@triton.jit(do_not_specialize=["groups"])
def _mask(
    codes,
    out,
    groups,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    g = row[:, None]
    e = tl.arange(0, COLUMNS)[None, :]
    within = (row < groups)[:, None] & (e < GROUP)
    q = _stored_code(codes, g, e, within, GROUP, BITS)
    there = tl.where(q > 0, 1.0, 0.0)
    tl.store(out + g * GROUP + e, there.to(out.dtype.element_ty), within)


def _tile(group: int, groups: int) -> tuple[tuple[int], dict[str, int]]:
    """Programs, and the rows and columns of the tile of one."""
    columns = triton.next_power_of_2(group)
    rows = max(1, TILE // columns)
    return (triton.cdiv(groups, rows),), {"ROWS": rows, "COLUMNS": columns}


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
    groups = x.numel() // group
    programs, tile = _tile(group, groups)
    given = {"GROUP": group, "BITS": bits, "RANDOM": random, "SUPPORT": support}
    tensors = x, codes, low, step
    with torch.cuda.device_of(x):
        _quantise[programs](*tensors, groups, word(seed), **given, **tile, **EXACT)


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
    groups = out.numel() // group
    programs, tile = _tile(group, groups)
    given = {"GROUP": group, "BITS": bits, "DITHERED": dithered, "SUPPORT": support}
    tensors = codes, low, step, out
    with torch.cuda.device_of(out):
        _dequantise[programs](*tensors, groups, word(seed), **given, **tile, **EXACT)


def mask(codes: torch.Tensor, group: int, bits: int, out: torch.Tensor) -> None:
    """1 where the code is not 0, else 0, into ``out``."""
    groups = out.numel() // group
    programs, tile = _tile(group, groups)
    with torch.cuda.device_of(out):
        _mask[programs](codes, out, groups, GROUP=group, BITS=bits, **tile, **EXACT)
