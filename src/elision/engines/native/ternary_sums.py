"""The ternary kernel that only adds: lists of table entries, and their product."""

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.engines.native.ternary_kernel import TernaryKernel, integer_images
from elision.formats.ternary_blocks import TernaryBlocks
from elision.native.shared_object import load
from elision.products import Conv2dGeometry

__all__ = ["AddedTernary", "planes"]

#: Columns of a table, whose sum fits 16 bits.
_COLUMNS = 64

#: Entry of a pair's table by its codes (a, b), as ``3·(a + 1) + (b + 1)``; 0: none.
_KINDS = torch.tensor([6, 2, 8, 4, 0, 3, 7, 1, 5])


@dataclass(frozen=True)
class _Lists:
    """The entries of one group of a convolution."""

    entries: Tensor  # int16, every unit's a multiple of four
    starts: Tensor  # int32 (units + 1)
    scales: Tensor  # float32 (units)
    places: Tensor  # int32 (tables, K): first unit
    counts: Tensor  # uint8 (tables, K): units enabled
    begins: Tensor  # int32 (tables + 1): columns
    cuts: int  # tables of a block


class AddedTernary(TernaryKernel):
    """The ternary terms of a layer's weight, as lists of what to add.

    Every term of every row is computed by itself, so none is computed for a neighbour's
    sake; a list takes about 6 bits a weight.

    Args:
        blocks: of each group of the layer; rows are the outputs of the group.
        counts: terms of each block, ``(K, B)``, for each group.

    Example:
        >>> from elision.formats.ternary_blocks import ternary_blocks
        >>> terms = ternary_blocks(torch.randn(20, 70), 64, 2)
        >>> added = AddedTernary([terms], [torch.full((20, 2), 2)])
        >>> added.bytes < 20 * 70 * 2 * 4
        True
    """

    def __init__(self, blocks: list[TernaryBlocks], counts: list[Tensor]) -> None:
        self._lists = [_lists(b, c) for b, c in zip(blocks, counts, strict=True)]

    @property
    def bytes(self) -> int:
        """Bytes of lists and scales as the kernel reads them."""
        return sum(x.entries.nbytes + x.scales.nbytes for x in self._lists)

    def enable(self, counts: list[Tensor]) -> None:
        """Enable so many terms of each block, no more than were listed."""
        for lists, count in zip(self._lists, counts, strict=True):
            enabled = count.T.repeat_interleave(lists.cuts, 0)[: len(lists.counts)]
            lists.counts.copy_(enabled)

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
        v, lists = geometry, self._lists[group]
        inner, rows = v.in_channels // v.groups, v.out_channels // v.groups
        shape = (ctypes.c_int * 18)(
            *(*images, group * inner, inner, *v.kernel, *v.stride, *v.dilation),
            *(v.out_height, v.out_width, rows, group * rows, v.out_channels),
            *(len(lists.begins) - 1, int(lists.begins[-1])),
        )
        return load().elision_ternary_sums(
            shape,
            x.data_ptr(),
            lists.entries.data_ptr(),
            lists.starts.data_ptr(),
            lists.scales.data_ptr(),
            lists.places.data_ptr(),
            lists.counts.data_ptr(),
            lists.begins.data_ptr(),
            bias.data_ptr(),
            step,
            y.data_ptr(),
            torch.get_num_threads(),
        )


def planes(
    x: Tensor, step: float, zero: int, padding: tuple[int, int] = (0, 0)
) -> tuple[Tensor, bool]:
    """Images as integers, one plane a channel, and whether every value is finite.

    Args and values are those of :func:`elision.engines.native.ternary.quantised`.

    Returns:
        int16 ``(C, N, H + 2·padding, W + 2·padding)``.

    Example:
        >>> q, finite = planes(torch.tensor([0.5, -9.0]).view(1, 2, 1, 1), 0.25, 3)
        >>> q.flatten().tolist(), finite
        ([5, -33], True)
    """
    function = "ternary_planes"
    return integer_images(x, step, zero, padding, function, torch.int16, "CNHW")


def _lists(blocks: TernaryBlocks, counts: Tensor) -> _Lists:
    terms, rows, count, block = blocks.codes.shape
    cuts = -(-block // _COLUMNS)
    ends = [
        min(b * block + min((i + 1) * _COLUMNS, block), blocks.columns)
        for b in range(count)
        for i in range(cuts)
    ]
    begins = torch.tensor([0, *ends], dtype=torch.int32)
    padded = F.pad(blocks.codes, (0, cuts * _COLUMNS - block))
    # A unit is a term of a row in a table: (tables, K, T), then pairs.
    codes = padded.view(terms, rows, count * cuts, _COLUMNS // 2, 2)
    codes = codes.permute(2, 1, 0, 3, 4).long() + 1
    kinds = _KINDS[3 * codes[..., 0] + codes[..., 1]]
    enabled = counts.T.repeat_interleave(cuts, 0)
    held = torch.arange(terms) < enabled[..., None]
    kinds = kinds[held]  # (units, pairs)
    used = kinds > 0
    entries = kinds + 8 * torch.arange(_COLUMNS // 2)
    lengths = (used.sum(1) + 3) // 4 * 4
    starts = F.pad(lengths.cumsum(0), (1, 0))
    places = starts[:-1, None] + used.cumsum(1) - 1
    flat = torch.zeros(int(starts[-1]), dtype=torch.int16)
    flat[places[used]] = entries[used].to(torch.int16)
    scales = blocks.scales.float().permute(2, 1, 0).repeat_interleave(cuts, 0)
    firsts = enabled.flatten().cumsum(0) - enabled.flatten()
    return _Lists(
        flat,
        starts.int(),
        scales[held].contiguous(),
        firsts.view(enabled.shape).int().contiguous(),
        enabled.to(torch.uint8).contiguous(),
        begins,
        cuts,
    )
