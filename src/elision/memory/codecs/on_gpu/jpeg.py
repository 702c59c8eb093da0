# Triton compiles a language of its own, which only looks like Python to a type checker.
# pyright: reportMissingImports=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false, reportReturnType=false
"""The cosine transforms of ``jpeg`` by Triton: one pass from values to coefficients.

Both transforms of an 8x8 block at once are one product of its 64 elements with the
Kronecker product of the 8-point transform with itself, in float32. Sums are in another
order than torch's, so a coefficient at the middle between two integers may be rounded to
the other one.
"""

import torch
import triton
import triton.language as tl

__all__ = ["restored", "transformed"]

#: Blocks of 8x8 that a program transforms (an own choice; a product needs 16 or more).
_BLOCKS = 32


@triton.jit
def _place(count, height, width, BLOCKS: tl.constexpr):
    """Where the elements of a program's blocks are, ``[BLOCKS, 64]`` each.

    Returns:
        Numbers of the blocks, whether there is such a block, its plane, its elements'
        numbers, and their rows and columns, which may be outside of the image.
    """
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    down, across = (height + 7) // 8, (width + 7) // 8
    plane = block // (down * across)
    inside = block % (down * across)
    e = tl.arange(0, 64)[None, :]
    y = (inside // across * 8)[:, None] + e // 8
    x = (inside % across * 8)[:, None] + e % 8
    return block[:, None], (block < count)[:, None], plane[:, None], e, y, x


@triton.jit
def _rounded(x):
    """The nearest integer, the even one of two; below 2^22 in magnitude."""
    return (x + 12582912.0) - 12582912.0  # 1.5 * 2^23, beside which there are no halves


@triton.jit(do_not_specialize=["count"])
def _transform(
    values,
    scales,
    both,
    table,
    coefficients,
    count,
    channels,
    height,
    width,
    of_image,
    of_channel,
    of_row,
    of_column,
    BLOCKS: tl.constexpr,
):
    block, there, plane, e, y, x = _place(count, height, width, BLOCKS)
    y, x = tl.minimum(y, height - 1), tl.minimum(x, width - 1)  # the last is repeated
    image, channel = plane // channels, plane % channels
    place = image * of_image + channel * of_channel + y * of_row + x * of_column
    value = tl.load(values + place, there, 0).to(tl.float32)
    scale = tl.load(scales + channel, there, 1.0) + tl.zeros([BLOCKS, 64], tl.float32)
    scale = tl.where(scale > 0, scale, 1.0)
    q = _rounded(tl.clamp(tl.div_rn(value, scale), -127.0, 127.0))
    n = tl.arange(0, 64)
    turn = tl.load(both + n[None, :] * 64 + n[:, None])  # [element, frequency]
    found = tl.dot(q, turn, input_precision="ieee")
    entry = tl.load(table + e) + tl.zeros([BLOCKS, 64], tl.float32)
    found = _rounded(tl.clamp(tl.div_rn(found, entry), -127.0, 127.0))
    tl.store(coefficients + block * 64 + e, found.to(tl.int8), there)


@triton.jit(do_not_specialize=["count"])
def _restore(
    coefficients,
    scales,
    both,
    table,
    values,
    count,
    channels,
    height,
    width,
    of_image,
    of_channel,
    of_row,
    of_column,
    BLOCKS: tl.constexpr,
):
    block, there, plane, e, y, x = _place(count, height, width, BLOCKS)
    image, channel = plane // channels, plane % channels
    found = tl.load(coefficients + block * 64 + e, there, 0).to(tl.float32)
    found = found * tl.load(table + e)
    n = tl.arange(0, 64)
    turn = tl.load(both + n[:, None] * 64 + n[None, :])  # [frequency, element]
    value = tl.dot(found, turn, input_precision="ieee")
    value = value * tl.load(scales + channel, there, 1.0)
    place = image * of_image + channel * of_channel + y * of_row + x * of_column
    inside = there & (y < height) & (x < width)
    tl.store(values + place, value.to(values.dtype.element_ty), inside)


def transformed(
    images: torch.Tensor, scales: torch.Tensor, dct: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """Coefficients of images in fixed point, divided by the table and rounded.

    Args:
        images: floating, ``(N, C, H, W)``, of any strides.
        scales: the unit of each channel, float32, ``C`` elements.
        dct: the 8-point transform, float32, ``(8, 8)``.
        table: float32, ``(8, 8)``.

    Returns:
        int8, ``(N, C, blocks, 64)``.
    """
    n, c, height, width = images.shape
    blocks = -(-height // 8) * -(-width // 8)
    coefficients = images.new_empty((n, c, blocks, 64), dtype=torch.int8)
    count = n * c * blocks
    with torch.cuda.device_of(images):
        _transform[(triton.cdiv(count, _BLOCKS),)](
            *(images, scales, torch.kron(dct, dct), table.contiguous(), coefficients),
            *(count, c, height, width, *images.stride()),
            BLOCKS=_BLOCKS,
        )
    return coefficients


def restored(
    coefficients: torch.Tensor,
    scales: torch.Tensor,
    dct: torch.Tensor,
    table: torch.Tensor,
    images: torch.Tensor,
) -> None:
    """Write the images of :func:`transformed` coefficients into ``images``."""
    _, c, height, width = images.shape
    count = coefficients.numel() // 64
    with torch.cuda.device_of(images):
        _restore[(triton.cdiv(count, _BLOCKS),)](
            *(coefficients, scales, torch.kron(dct, dct), table.contiguous(), images),
            *(count, c, height, width, *images.stride()),
            BLOCKS=_BLOCKS,
        )
