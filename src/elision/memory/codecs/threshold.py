"""One bit per element: on which side of its threshold a value lies."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from elision.memory.codecs.bits import pack_bits, unpack_bits
from elision.memory.codecs.traced import TracedMask
from elision.memory.saved.codec import Codec, Guarantee, Packed, TracedCodec
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import Role, Slot

__all__ = ["ThresholdMask"]


@dataclass(frozen=True)
class ThresholdMask(Codec):
    """Exact for ReLU, leaky ReLU, threshold and hardtanh (ReLU6): 1 bit per element.

    The backward of these functions reads only whether the saved value lies inside an
    open interval, so two representatives, one inside and one outside, give the same
    gradients bit for bit. Known as binarize (Gist) and binary ReLU compression
    (JPEG-ACT).

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ReluBackward0", "result", Role.THRESHOLD)
        >>> x = torch.linspace(-1, 1, 1024)
        >>> packed = ThresholdMask().pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (128, 4096)
    """

    name = "1-bit mask"
    guarantee = Guarantee.EXACT
    roles = frozenset({Role.THRESHOLD})

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep which elements lie inside the interval of the slot's function."""
        low, high = _interval(slot.function, slot.node)
        values = flat(tensor)
        if slot.function == "LeakyReluBackward0":
            inside = values > low
        else:  # the backward tests for "outside", so a NaN counts as inside
            inside = (values <= low).logical_not_()
            if math.isfinite(high):
                inside &= (values >= high).logical_not_()
        bounded = math.isfinite(high)
        representatives = ((low + high) / 2, high) if bounded else (low + 1.0, low)
        return Packed((pack_bits(inside),), Layout.of(tensor), representatives)

    def unpack(self, packed: Packed) -> torch.Tensor:
        """A representative of the interval's inside or outside per element."""
        inside, outside = packed.meta
        mask = unpack_bits(packed.payload[0], packed.layout.numel)
        values = mask.to(packed.layout.dtype)
        if (inside, outside) != (1.0, 0.0):
            values.mul_(inside - outside).add_(outside)
        return packed.layout.view(values)

    def traced(self, relu: bool) -> TracedCodec | None:
        """One bit per element."""
        del relu
        return TracedMask()


def _interval(function: str, node: Any) -> tuple[float, float]:
    """The open interval in which the function's gradient passes."""
    if function == "HardtanhBackward0":
        return float(node._saved_min_val), float(node._saved_max_val)
    if function == "ThresholdBackward0":
        return float(node._saved_threshold), math.inf
    return 0.0, math.inf
