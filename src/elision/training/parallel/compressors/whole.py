"""Gradients as they are, in float32, which the network adds up."""

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
)

__all__ = ["FP32"]


@dataclass(frozen=True)
class FP32(Compressor):
    """Nothing is left out; on float32 gradients it does what no hook does.

    For what else the hook gives: the rank and the parameter of a gradient that is not
    finite, checksums, traffic; and as the oracle of the other compressors.

    Example:
        >>> message = FP32().compress(torch.tensor([1.0, 2.0]), State())
        >>> FP32().decompress(message).tolist(), message.bits
        ([1.0, 2.0], 64)
    """

    @property
    def guarantee(self) -> Guarantee:
        """Exact."""
        return "exact"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """The values."""
        state.step += 1
        values = tensor.detach().flatten().to(torch.float32)
        return Message((values,), tensor.shape, summed=True)

    def decompress(self, message: Message) -> Tensor:
        """The values in their shape."""
        return message.parts[0].view(message.shape)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """``32n``."""
        del state
        return 32 * math.prod(shape)
