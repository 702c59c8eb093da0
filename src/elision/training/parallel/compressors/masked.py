"""The gradient of a masked weight, at its surviving values alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.training.parallel.compressors.base import (
    Compressor,
    Guarantee,
    Message,
    State,
    scattered,
)

__all__ = ["Masked"]


@dataclass(frozen=True)
class Masked(Compressor):
    """Float32 values where the mask is true; no places, since every rank has the mask.

    What lies outside is not needed: it becomes zero, and is no error to remember. A
    tensor without a mask is sent whole, as is a gradient of which the rule announced that
    it needs all of it (RigL in the steps in which masks move).

    Example:
        >>> state = State(mask=torch.tensor([True, False, True]))
        >>> message = Masked().compress(torch.tensor([1.0, 2.0, 3.0]), state)
        >>> Masked().decompress(message).tolist(), message.bits
        ([1.0, 0.0, 3.0], 64)
    """

    @property
    def guarantee(self) -> Guarantee:
        """Exact where the mask is true."""
        return "exact"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """The values alone."""
        flat = tensor.detach().float().flatten()
        state.step += 1
        if state.mask is None:
            return Message((flat,), tensor.shape, summed=True)
        places = state.mask.flatten().nonzero().flatten()
        return Message((flat[places],), tensor.shape, summed=True, places=places)

    def decompress(self, message: Message) -> Tensor:
        """The values at their places, zero elsewhere."""
        values = message.parts[0]
        if message.places is None:
            return values.view(message.shape)
        return scattered(values, message.places, message.shape)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """32 for each value that survives."""
        if state is None or state.mask is None:
            return 32 * math.prod(shape)
        return 32 * int(torch.count_nonzero(state.mask))
