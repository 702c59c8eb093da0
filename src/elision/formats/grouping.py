"""Which values share a scale: all of a tensor, a channel, or a block along an axis."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elision.common.checks import integer, one_of

__all__ = ["Grouping", "Groups"]


@dataclass(frozen=True)
class Groups:
    """The values of a tensor, those that share a scale in a row.

    Attributes:
        values: ``(G, n)`` float64; a block that is shorter than the others is filled up
            with zeros.
        counts: ``(G, 1)`` float64, values of a row without such zeros.
    """

    values: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Grouping:
    """Sharing of scales.

    Attributes:
        over: ``"tensor"``: one scale; ``"channel"``: one for each slice of the axis;
            ``"block"``: one for ``block`` neighbours along the axis. The last block is
            shorter where the length is no multiple.
        block: values that share a scale, if ``over`` is ``"block"``.

    Example:
        >>> Grouping("block", 2).split(torch.arange(3.0), axis=-1).values.tolist()
        [[0.0, 1.0], [2.0, 0.0]]
    """

    over: Literal["tensor", "channel", "block"] = "tensor"
    block: int = 0

    def __post_init__(self) -> None:
        one_of("Grouping", "over", self.over, ("tensor", "channel", "block"))
        integer(
            "Grouping",
            "block",
            self.block,
            ">= 1" if self.over == "block" else "[0, 0]",
        )

    def shape(self, shape: torch.Size, axis: int) -> tuple[int, ...]:
        """Shape of the scales of a tensor of this shape.

        A tensor has one, ``()``; channels ``(C,)``; blocks the tensor's shape with the
        number of blocks in place of the axis. A scalar counts as one value.
        """
        if self.over == "tensor":
            return ()
        shape = shape or torch.Size((1,))
        axis = _dimension(shape, axis)
        if self.over == "channel":
            return (shape[axis],)
        blocks = -(-shape[axis] // self.block)
        return (*shape[:axis], blocks, *shape[axis + 1 :])

    def within(self, length: int) -> int:
        """The length of a block of so many values: a longer one is not filled up.

        Example:
            >>> Grouping("block", 10**12).within(3)
            3
        """
        return max(1, min(self.block, length))

    def split(self, x: Tensor, axis: int) -> Groups:
        """Rows of the values that share a scale, in the order of the scales."""
        x = x if x.dim() else x.view(1)
        if self.over == "tensor":
            rows = x.double().reshape(1, -1)
            return Groups(rows, _full(rows))
        axis = _dimension(x.shape, axis)
        if self.over == "channel":
            rows = x.double().movedim(axis, 0)
            rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
            return Groups(rows, _full(rows))
        length = x.shape[axis]
        block = self.within(length)
        blocks = -(-length // block)
        lines = x.double().movedim(axis, -1)
        lines = torch.nn.functional.pad(lines, (0, blocks * block - length))
        rows = lines.unflatten(-1, (blocks, block)).movedim(-2, axis)
        rows = rows.reshape(-1, block)
        count = torch.full((blocks,), float(block), dtype=torch.float64)
        if blocks:
            count[-1] = length - (blocks - 1) * block
        shape = [1] * x.dim()
        shape[axis] = blocks
        counts = count.to(x.device).view(shape).expand(self.shape(x.shape, axis))
        return Groups(rows, counts.reshape(-1, 1))

    def spread(self, scales: Tensor, shape: torch.Size, axis: int) -> Tensor:
        """Scales, of the shape that is theirs, so that they broadcast with a tensor's."""
        if self.over == "tensor" or not shape:
            return scales.reshape(())
        axis = _dimension(shape, axis)
        if self.over == "channel":
            return scales.view(-1, *[1] * (len(shape) - axis - 1))
        block = self.within(shape[axis])
        return scales.repeat_interleave(block, axis).narrow(axis, 0, shape[axis])


def _full(rows: Tensor) -> Tensor:
    return rows.new_full((len(rows), 1), rows.shape[1])


def _dimension(shape: torch.Size, axis: int) -> int:
    """The axis counted from the first dimension."""
    return integer("round", "axis", axis, f"[-{len(shape)}, {len(shape)})") % len(shape)
