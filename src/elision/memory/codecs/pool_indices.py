"""Two to four bits for a max-pooling index, which PyTorch keeps in 64."""

from dataclasses import dataclass
from typing import Any

import torch

from elision.memory.codecs.bits import pack_codes, unpack_codes
from elision.memory.codecs.pieces import cuts
from elision.memory.codecs.traced import TracedIndices
from elision.memory.saved.checksum import DamagedError
from elision.memory.saved.codec import Codec, Guarantee, Packed, TracedCodec
from elision.memory.saved.layout import Layout
from elision.memory.saved.roles import Role, Slot

__all__ = ["PoolIndices"]


@dataclass(frozen=True)
class PoolIndices(Codec):
    """Exact for the indices of 2-D max pooling: ``ceil(log2(kernel taps))`` bits.

    An index into the input plane is the window's origin plus an offset inside the
    window, and the origin follows from the position of the output. (PyTorch's int64
    indices cost twice the bytes of the elements they point at: pytorch/pytorch#103785.)

    Example:
        >>> from torch.nn.functional import max_pool2d
        >>> x = torch.randn(1, 4, 16, 16, requires_grad=True)
        >>> pooled, indices = max_pool2d(x, 2, return_indices=True)
        >>> node = pooled.grad_fn
        >>> slot = Slot(node.name(), "result1", Role.POOL_INDICES, node=node)
        >>> packed = PoolIndices().pack(indices, slot)  # 2 bits for one of four taps
        >>> packed.nbytes, indices.nbytes, PoolIndices().unpack(packed).equal(indices)
        (64, 2048, True)
    """

    name = "window offset"
    guarantee = Guarantee.EXACT
    roles = frozenset({Role.POOL_INDICES})

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep each index as the number of its tap in its window.

        The taps are numbered row by row; a window of more than 256 taps is not packed,
        nor are indices that somebody has written and that are in no window of theirs.
        """
        kernel = _pair(slot.node._saved_kernel_size)
        taps = kernel[0] * kernel[1]
        if taps > 256:
            return None
        dilation = _pair(slot.node._saved_dilation)
        height, width = slot.node._saved_self.shape[-2:]
        window = (
            kernel[1],
            width,
            dilation,
            _pair(slot.node._saved_stride) or kernel,
            _pair(slot.node._saved_padding),
        )
        rows, columns = _origins(tensor, window)
        tap = tensor.new_empty(tensor.shape, dtype=torch.uint8)
        for index in cuts(tensor.shape, tensor.dim() - 2):
            row = torch.div(tensor[index], width, rounding_mode="floor").sub_(rows)
            column = (tensor[index] % width).sub_(columns)
            if dilation != (1, 1):
                if (row % dilation[0]).any() or (column % dilation[1]).any():
                    return None
                row //= dilation[0]
                column //= dilation[1]
            if not (_within(row, kernel[0]) and _within(column, kernel[1])):
                return None
            tap[index] = row.mul_(kernel[1]).add_(column)
        bits = max(1, (taps - 1).bit_length())
        codes = pack_codes(tap.view(-1), bits)
        return Packed((codes,), Layout.of(tensor), (bits, window, height))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The int64 indices.

        Raises:
            DamagedError: one is outside of the pool's input, where the backward pass would
                write unasked.
        """
        bits, window, height = packed.meta
        kernel_width, width, dilation, _, _ = window
        layout = packed.layout
        taps = unpack_codes(packed.payload[0], bits, layout.numel).view(layout.shape)
        rows, columns = _origins(taps, window)
        # The backward reads them in the memory format of the pool's input.
        restored = layout.empty()
        for index in cuts(taps.shape, taps.dim() - 2):
            tap = taps[index].to(torch.int64)
            row = torch.div(tap, kernel_width, rounding_mode="floor")
            column = tap.sub_(row * kernel_width).mul_(dilation[1]).add_(columns)
            restored[index] = row.mul_(dilation[0]).add_(rows).mul_(width).add_(column)
        if restored.numel() and not _within(restored, height * width):
            raise DamagedError(
                f"a saved pooling index is outside of its plane of {height} x {width}: its "
                "packed bytes changed since the forward pass; repeat the step"
            )
        return restored

    def traced(self, relu: bool) -> TracedCodec | None:
        """The indices in 32 bits."""
        del relu
        return TracedIndices()


def _within(numbers: torch.Tensor, count: int) -> bool:
    """True if all are in ``[0, count)``."""
    low, high = torch.aminmax(numbers)
    return bool(low >= 0) and bool(high < count)


def _pair(value: Any) -> tuple[int, int]:
    values = tuple(value)
    return (values * 2)[:2] if values else ()  # pyright: ignore[reportReturnType]


def _origins(like: torch.Tensor, window: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of each window's first tap, to broadcast over output planes."""
    _, _, _, stride, padding = window
    height, width = like.shape[-2:]
    rows = torch.arange(height, device=like.device) * stride[0] - padding[0]
    columns = torch.arange(width, device=like.device) * stride[1] - padding[1]
    return rows[:, None], columns
