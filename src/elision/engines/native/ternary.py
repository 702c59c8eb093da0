"""The ternary kernel as Python: packed weights, 8-bit activations, their product."""

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.engines.native.ternary_kernel import TernaryKernel, integer_images
from elision.formats.ternary_blocks import TernaryBlocks
from elision.native.shared_object import load
from elision.products import Conv2dGeometry

__all__ = ["LARGEST_BLOCK", "ROWS", "PackedTernary", "quantised"]

#: Outputs that the kernel computes at once.
ROWS = 16

#: Largest block whose sum fits 16 bits, whatever the activations.
LARGEST_BLOCK = 256

#: Columns of a packed word of each row, four to a byte.
_STEP = 16


@dataclass(frozen=True)
class _Group:
    """The packed weights of one group of a convolution."""

    codes: Tensor  # uint8 (units, words, 16 rows, 4 bytes)
    scales: Tensor  # float32 (units, 16)
    places: Tensor  # int32 (row groups, blocks): a block's first unit
    counts: Tensor  # uint8 (row groups, blocks): terms enabled


class PackedTernary(TernaryKernel):
    """The ternary terms of a layer's weight, packed for the kernel in 2 bits a code.

    A term of 16 rows and one block is computed if any of the 16 rows has it.

    Args:
        blocks: of each group of the layer; rows are the outputs of the group.
        counts: terms of each block, ``(K, B)``, for each group.

    Raises:
        ValueError: the blocks are larger than :data:`LARGEST_BLOCK`.

    Example:
        >>> from elision.formats.ternary_blocks import ternary_blocks
        >>> w = torch.randn(20, 70)
        >>> terms = ternary_blocks(w, 64, 2)
        >>> packed = PackedTernary([terms], [torch.full((20, 2), 2)])
        >>> packed.bytes
        2560
    """

    def __init__(self, blocks: list[TernaryBlocks], counts: list[Tensor]) -> None:
        largest = max(b.block for b in blocks)
        if largest > LARGEST_BLOCK:
            raise ValueError(
                f"the ternary kernel sums blocks of at most {LARGEST_BLOCK} in 16 bits, "
                f"got blocks of {largest}"
            )
        self._blocks = blocks
        self._groups = [_packed(b, c) for b, c in zip(blocks, counts, strict=True)]

    @property
    def bytes(self) -> int:
        """Bytes of codes and scales as the kernel reads them."""
        return sum(g.codes.nbytes + g.scales.nbytes for g in self._groups)

    def enable(self, counts: list[Tensor]) -> None:
        """Enable so many terms of each block, no more than were packed; nothing moves."""
        for blocks, group, count in zip(
            self._blocks, self._groups, counts, strict=True
        ):
            scales, most = _unit_scales(blocks.enabled(count), count)
            group.counts.copy_(most)
            for term in range(blocks.terms):
                held = term < most
                units = (group.places + term)[held].long()
                group.scales[units] = scales[term][held]

    def _multiply(
        self,
        group: int,
        images: tuple[int, int, int],
        x: Tensor,
        geometry: Conv2dGeometry,
        bias: Tensor,
        step: float,
        y: Tensor,
    ) -> int:
        v, blocks, packed = geometry, self._blocks[group], self._groups[group]
        inner, rows = v.in_channels // v.groups, v.out_channels // v.groups
        shape = (ctypes.c_int * 20)(
            *(*images, v.in_channels, group * inner, inner, *v.kernel, *v.stride),
            *(*v.dilation, v.out_height, v.out_width),
            *(rows, group * rows, v.out_channels),
            *(blocks.codes.shape[2], blocks.block, blocks.columns),
        )
        return load().elision_ternary_forward(
            shape,
            x.data_ptr(),
            packed.codes.data_ptr(),
            packed.scales.data_ptr(),
            packed.places.data_ptr(),
            packed.counts.data_ptr(),
            bias.data_ptr(),
            step,
            y.data_ptr(),
            torch.get_num_threads(),
        )


def quantised(
    x: Tensor, step: float, zero: int, padding: tuple[int, int] = (0, 0)
) -> tuple[Tensor, bool]:
    """Images as 8-bit integers, channels innermost, and whether every value is finite.

    Args:
        x: ``(N, C, H, W)``.
        step: what an integer is worth, positive.
        zero: the integer of 0.0, in [-128, 127]; the padding's value.
        padding: rows and columns on each side.

    Returns:
        int8 ``(N, H + 2·padding, W + 2·padding, C)``: ``round(x / step) + zero``, ties to
        even, clipped to [-128, 127].

    Example:
        >>> q, finite = quantised(torch.tensor([0.5, -9.0]).view(1, 1, 1, 2), 0.25, 3)
        >>> q.flatten().tolist(), finite
        ([5, -33], True)
    """
    function = "ternary_quantise"
    return integer_images(x, step, zero, padding, function, torch.int8, "NHWC")


def _packed(blocks: TernaryBlocks, counts: Tensor) -> _Group:
    """Codes of the terms that the counts name, the row groups' blocks one after another."""
    scales, most = _unit_scales(blocks, counts)
    terms, rows, count, block = blocks.codes.shape
    grouped = -(-rows // ROWS)
    padded = -(-block // _STEP) * _STEP
    codes = (
        F.pad(blocks.codes, (0, padded - block, 0, 0, 0, grouped * ROWS - rows)).to(
            torch.uint8
        )
        + 1
    )
    # (T, groups, 16 rows, B, words, 4 fields, 4 bytes) to two bits of each field.
    codes = codes.view(terms, grouped, ROWS, count, padded // _STEP, 4, 4)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).view(4, 1)
    packed = (codes << shifts).sum(-2).to(torch.uint8)
    packed = packed.permute(0, 1, 3, 4, 2, 5)  # (T, groups, B, words, 16, 4)
    # A unit is a term of a block of a row group; those that no row has are not there.
    held = torch.arange(terms).view(-1, 1, 1) < most
    by_block = held.permute(1, 2, 0)
    ends = most.long().flatten().cumsum(0)
    places = (ends - most.long().flatten()).view(most.shape)
    return _Group(
        packed.permute(1, 2, 0, 3, 4, 5)[by_block].contiguous(),
        scales.permute(1, 2, 0, 3)[by_block].contiguous(),
        places.int().contiguous(),
        most.contiguous(),
    )


def _unit_scales(blocks: TernaryBlocks, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Scales ``(T, groups, B, 16)`` and the most terms of any row ``(groups, B)`` uint8."""
    rows = counts.shape[0]
    more = -rows % ROWS
    counts = F.pad(counts, (0, 0, 0, more)).view(-1, ROWS, counts.shape[1])
    scales = F.pad(blocks.scales.float(), (0, 0, 0, more))
    scales = scales.view(blocks.terms, -1, ROWS, blocks.scales.shape[2])
    # A row that lacks a term which another of the 16 has takes part with scale 0.
    places = torch.arange(blocks.terms).view(-1, 1, 1, 1)
    scales = torch.where(places < counts, scales, 0.0)
    return scales.transpose(2, 3), counts.amax(1).to(torch.uint8)
