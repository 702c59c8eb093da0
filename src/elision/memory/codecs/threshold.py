"""One bit per element: on which side of its threshold a value lies."""

from collections.abc import Hashable
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

    The backward of these functions reads only on which side of its thresholds the saved
    value lies, so two representatives, one for each side, give the same gradients bit
    for bit. Both are elements of the tensor itself: any number made up for the purpose
    might round to a threshold in the tensor's dtype. Known as binarize (Gist) and binary
    ReLU compression (JPEG-ACT).

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
        """Keep which elements the gradient passes, and one element of each kind."""
        values = flat(tensor)
        passes = _passes(values, slot)
        # The first of each kind; where there is none, another that is never read.
        found = (
            passes.numpy() if passes.device.type == "cpu" else passes.to(torch.uint8)
        )
        places = [int(found.argmin()), int(found.argmax())]
        return Packed((pack_bits(passes),), Layout.of(tensor), values[places])

    def form(self, slot: Slot) -> Hashable:
        """One function's threshold says nothing about another's."""
        names = ("threshold", "min_val", "max_val")
        limits = (getattr(slot.node, f"_saved_{name}", None) for name in names)
        return self, slot.function, *limits

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The representative of its side per element."""
        mask = unpack_bits(packed.payload[0], packed.layout.numel)
        outside, inside = packed.meta
        return packed.layout.view(torch.where(mask, inside, outside))

    def traced(self, relu: bool) -> TracedCodec | None:
        """One bit per element."""
        del relu
        return TracedMask()


def _passes(values: torch.Tensor, slot: Slot) -> torch.Tensor:
    """Which elements the slot's function passes the gradient of, boolean.

    Thresholds other than zero are rounded to the tensor's dtype by some kernels and not
    by others, so the kernel of the backward pass is asked itself.
    """
    one = values.new_ones(()).expand_as(values)
    node: Any = slot.node
    if slot.function == "LeakyReluBackward0":
        return values > 0
    if slot.function == "ThresholdBackward0":
        threshold = node._saved_threshold
        return torch.ops.aten.threshold_backward(one, values, threshold) != 0
    if slot.function == "HardtanhBackward0":
        low, high = node._saved_min_val, node._saved_max_val
        return torch.ops.aten.hardtanh_backward(one, values, low, high) != 0
    return (values <= 0).logical_not_()  # a ReLU passes a NaN
