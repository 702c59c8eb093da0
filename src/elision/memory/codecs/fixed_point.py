"""Scaled fixed-point precision reduction (SFPR): one scale per channel."""

from dataclasses import dataclass

import torch

from elision.common.checks import integer, number
from elision.memory.codecs.bits import pack_codes, unpack_codes
from elision.memory.codecs.pieces import cuts, part
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import Layout
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["FixedPoint", "channel_maxima"]


def channel_maxima(tensor: torch.Tensor) -> torch.Tensor:
    """``max|x|`` per channel (axis 1 of images, the last axis otherwise), broadcast."""
    channel = 1 if tensor.dim() > 2 else tensor.dim() - 1
    others = [axis for axis in range(tensor.dim()) if axis != channel]
    high, low = tensor.amax(others, keepdim=True), tensor.amin(others, keepdim=True)
    return torch.maximum(high, -low).to(torch.float32)


@dataclass(frozen=True)
class FixedPoint(Codec):
    """Rounds each channel to a grid that its largest magnitude ``m`` spans.

    ::

        q = clip(round(x·S·L/m), -L, L),   x̂ = q·m/(S·L),   L = 2**(bits-1) - 1

    (JPEG-ACT, ISCA 2020.) The published rule scales by ``2**(bits-1)`` and clips the
    positive peak a whole step; ``L`` here makes half a step a true bound at S = 1. The
    result of a ReLU is unsigned: ``L = 2**bits - 1``, code 0 is exactly zero and a
    small positive value takes code 1, at most a step away.

    Attributes:
        bits: bits per element, 2 to 8.
        scale: ``S >= 1``; above 1 rare peaks clip, by up to ``m·(1 - 1/S)``.

    Raises:
        ValueError: a parameter out of its range.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.linspace(-1, 1, 1024).view(1, 4, 16, 16)
        >>> packed = FixedPoint(8).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (1040, 4096)
    """

    bits: int = 8
    scale: float = 1.0
    name = "fixed point"
    guarantee = Guarantee.BOUNDED
    roles = SMOOTH_ROLES

    def __post_init__(self) -> None:
        integer("FixedPoint", "bits", self.bits, "[2, 8]")
        number("FixedPoint", "scale", self.scale, ">= 1")

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Quantise; None if an element is not finite."""
        if not floating(tensor):
            return None
        unsigned = slot.nonnegative
        levels = 2**self.bits - 1 if unsigned else 2 ** (self.bits - 1) - 1
        largest = channel_maxima(tensor)
        step = largest / (self.scale * levels)
        low = 0 if unsigned else -levels
        codes = tensor.new_empty(tensor.shape, dtype=torch.uint8)
        for index in cuts(tensor.shape):
            x, h = tensor[index].to(torch.float32), part(step, index)
            q = (x / h.where(h > 0, 1)).round_().clamp_(low, levels)
            if unsigned:
                q = torch.where(x > 0, q.clamp_(min=1), 0)
            codes[index] = q.sub_(low)
        half = 1.0 if unsigned else 0.5
        most = float((step * half + largest * (1 - 1 / self.scale)).max())
        rounding = torch.finfo(tensor.dtype).eps * float(largest.max())
        bound = most + 4 * max(rounding, torch.finfo(torch.float32).eps * most)
        meta = (unsigned, low, bound)
        return Packed(
            (pack_codes(codes.view(-1), self.bits), step), Layout.of(tensor), meta
        )

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The grid points."""
        codes, step = packed.payload
        q = unpack_codes(codes, self.bits, packed.layout.numel)
        q, restored = q.view(packed.layout.shape), packed.layout.empty()
        for index in cuts(q.shape):
            values = q[index].to(torch.float32).add_(packed.meta[1])
            restored[index] = values.mul_(part(step, index))
        return restored

    def keeps_sign(self, packed: Packed) -> bool:
        """True if the tensor is the result of a ReLU."""
        return packed.meta[0]

    def bound(self, packed: Packed) -> float | None:
        """Half a step (a step after a ReLU), and what clipping costs if S > 1."""
        return packed.meta[2]
