"""Block means of a feature map as bfloat16, the residual in a few bits."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from elision.common.checks import integer
from elision.memory.codecs.bits import keep_positive, pack_bits, unpack_bits
from elision.memory.codecs.group import GroupQuant
from elision.memory.codecs.pieces import cuts
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["Division"]


@dataclass(frozen=True)
class Division(Codec):
    """Block means as bfloat16, and the residual group-quantised (DIVISION, ICML 2023).

    Images only; anything else is left to the next codec. The residual is rounded
    with dither, in groups rather than per channel, so the restored tensor is unbiased
    except after a ReLU, where a mask of 1 bit restores the zeros as zeros and
    clamps the others to positive values.

    Attributes:
        bits: bits per element of the residual (published: 2).
        block: edge of a block (own choice: 8).

    Raises:
        ValueError: a parameter out of its range.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.linspace(-1, 1, 1024).view(1, 4, 16, 16)
        >>> packed = Division(2).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (352, 4096)
    """

    bits: int = 2
    block: int = 8
    name = "division"
    guarantee = Guarantee.LOSSY
    roles = SMOOTH_ROLES

    def __post_init__(self) -> None:
        integer("Division", "bits", self.bits, "[1, 8]")
        integer("Division", "block", self.block, ">= 2")

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Split, and quantise the residual; None if it is not finite or not of images."""
        small = tensor.dim() != 4 or min(tensor.shape[2:]) < self.block
        if small or not floating(tensor):
            return None
        n, c, h, w = tensor.shape
        size = n, c, -(-h // self.block), -(-w // self.block)
        means = tensor.new_empty(size, dtype=torch.bfloat16)
        residual = tensor.new_empty(tensor.shape, dtype=torch.float32)
        for index in cuts(tensor.shape):
            piece = tensor[index].to(torch.float32)
            means[index] = F.avg_pool2d(piece, self.block, ceil_mode=True)
            spread = self._spread(means[index], tensor.shape)
            torch.sub(piece, spread, out=residual[index])
        plain = Slot(slot.function, slot.name, slot.role, seed=slot.seed)
        rest = GroupQuant(self.bits).pack(residual, plain)
        if rest is None:  # a sum of a block, or the range of what is left, overflows
            return None
        payload = [means, *rest.payload]
        if slot.nonnegative:
            payload.append(pack_bits(flat(tensor) > 0))
        return Packed(tuple(payload), Layout.of(tensor), (rest, slot.nonnegative))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """Means plus residual."""
        rest, masked = packed.meta
        inner = packed.payload[1 : 1 + len(rest.payload)]
        values = GroupQuant(self.bits).unpack(rest.holding(inner))
        layout = packed.layout
        for index in cuts(values.shape):
            values[index] += self._spread(packed.payload[0][index], values.shape)
        if (values.stride(), values.dtype) != (layout.stride, layout.dtype):
            values = layout.empty().copy_(values)
        if masked:
            keep_positive(flat(values), packed.payload[-1])
        return values

    def keeps_sign(self, packed: Packed) -> bool:
        """True if a mask is kept."""
        return packed.meta[1]

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """The mask alone."""
        mask = unpack_bits(packed.payload[-1], packed.layout.numel)
        return packed.layout.view(mask.to(packed.layout.dtype))

    def _spread(self, means: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Block means repeated over the pixels of their blocks."""
        wide = means.float().repeat_interleave(self.block, 2)
        return wide.repeat_interleave(self.block, 3)[..., : shape[2], : shape[3]]
