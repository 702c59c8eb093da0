"""No bytes for tensors of which the backward pass needs the shape only."""

from dataclasses import dataclass

import torch

from elision.memory.codecs.traced import TracedShape
from elision.memory.saved.codec import Codec, Guarantee, Packed, TracedCodec
from elision.memory.saved.layout import Layout
from elision.memory.saved.roles import Role, Slot

__all__ = ["ShapeOnly"]


@dataclass(frozen=True)
class ShapeOnly(Codec):
    """Exact for the inputs of pooling: their values are never read in the backward.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("AvgPool2DBackward0", "self", Role.SHAPE)
        >>> x = torch.linspace(-1, 1, 1024)
        >>> packed = ShapeOnly().pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (0, 4096)
    """

    name = "shape only"
    guarantee = Guarantee.EXACT
    roles = frozenset({Role.SHAPE})
    shared = False
    reads_values = False

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the layout."""
        return Packed((), Layout.of(tensor))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """Unspecified values: one element expanded, where that keeps the format.

        The pooling kernels choose the memory format of their result by the strides of
        this tensor, so a ``channels_last`` one needs real strides for a moment.
        """
        layout = packed.layout
        contiguous = torch.empty((), dtype=layout.dtype, device=layout.device)
        expected = torch.empty(layout.shape, device="meta").stride()
        if layout.stride == expected:
            return contiguous.expand(layout.shape)
        return layout.empty()

    def traced(self, relu: bool) -> TracedCodec | None:
        """The shape alone."""
        del relu
        return TracedShape()
