"""The values of largest magnitude, with their places."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elision.common.checks import number, one_of
from elision.engines.native.library import largest_places as native_places
from elision.engines.native.library import unavailable
from elision.operands.base import share_of
from elision.operands.top_k import sampled_magnitudes
from elision.training.parallel.compressors.base import (
    Compressor,
    Guarantee,
    Message,
    State,
    scattered,
    scattered_mean,
    take_out,
)
from elision.training.parallel.compressors.places import (
    pack_places,
    place_bits,
    unpack_places,
)

__all__ = [
    "Threshold",
    "TopK",
    "largest_places",
    "sparse_bits",
    "sparse_message",
    "sparse_parts",
]

Threshold = Literal["sampled", "exact"]

#: Magnitudes that a threshold is taken from (that of :class:`elision.operands.TopK`).
_SAMPLE = 16384

#: Values from which on the native kernels are worth their call (an own choice).
_NATIVE = 4096

#: Standard deviations of the sampled count by which the threshold is set lower, so that
#: fewer than ``k`` candidates are rare (an own choice); the answer is exact either way.
_MARGIN = 4


@dataclass(frozen=True)
class TopK(Compressor):
    """The ``ceil(share·n)`` values of largest magnitude in float32, and their places.

    Attributes:
        share: of the values, in (0, 1].
        threshold: ``"exact"`` selects among all values. ``"sampled"`` takes a threshold
            from a sample, low enough to leave some more than ``k``, and selects among
            those: the same values, ties aside, many times faster by a native kernel, and
            several times by torch.

    Source: Aji and Heafield, Sparse Communication for Distributed Gradient Descent, EMNLP
    2017; the sampled threshold is that of Lin et al., Deep Gradient Compression, ICLR
    2018, section 5, made exact.

    Example:
        >>> message = TopK(share=0.25).compress(torch.tensor([1.0, -9.0, 2.0, 0.0]), State())
        >>> TopK().decompress(message).tolist(), message.bits
        ([0.0, -9.0, 0.0, 0.0], 56)
    """

    share: float = 0.01
    threshold: Threshold = "sampled"

    def __post_init__(self) -> None:
        number("TopK", "share", self.share, "(0, 1]")
        one_of("TopK", "threshold", self.threshold, ("sampled", "exact"))

    @property
    def guarantee(self) -> Guarantee:
        """What is small never travels without a memory."""
        return "biased"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """Values, then places."""
        flat = tensor.detach().float().flatten()
        count = share_of(self.share, flat.numel())
        places = largest_places(flat, count, self.threshold)
        state.step += 1
        return sparse_message(flat, places, tensor.shape)

    def decompress(self, message: Message) -> Tensor:
        """The values at their places, zero elsewhere."""
        return scattered(*sparse_parts(message), message.shape)

    def mean(self, messages: Sequence[Message]) -> Tensor:
        """Mean of the tensors, of which no other is made."""
        return scattered_mean([sparse_parts(m) for m in messages], messages[0].shape)

    def settle(self, tensor: Tensor, message: Message) -> Tensor:
        """Subtract the values at their places."""
        return take_out(tensor, *sparse_parts(message))

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """32 bits a value, and the places."""
        del state
        return sparse_bits(self.share, shape)


def sparse_message(flat: Tensor, places: Tensor, shape: torch.Size) -> Message:
    """The values at places, and the places."""
    return Message((flat[places], *pack_places(places, flat.numel())), shape)


def sparse_parts(message: Message) -> tuple[Tensor, Tensor]:
    """The values and the places of such a message."""
    values, *places = message.parts
    return values, unpack_places(tuple(places))


def sparse_bits(share: float, shape: Sequence[int]) -> int:
    """Bits of a share of a tensor: 32 a value, and the places."""
    size = math.prod(shape)
    count = share_of(share, size)
    return 32 * count + place_bits(count, size)


def largest_places(flat: Tensor, count: int, threshold: Threshold) -> Tensor:
    """Rising places of the ``count`` values of largest magnitude.

    Args:
        flat: finite values, one axis.
        count: in [1, n].
        threshold: see :class:`TopK`.
    """
    if threshold == "sampled" and flat.is_cpu and flat.numel() >= _NATIVE:
        found = None if unavailable() else native_places(flat.contiguous(), count)
        if found is not None:
            return found
    magnitudes = flat.abs()
    if threshold == "sampled" and flat.numel() > 4 * _SAMPLE:
        expected = _SAMPLE * count / flat.numel()
        rank = math.ceil(expected + _MARGIN * math.sqrt(expected))
        if rank < _SAMPLE:
            sample = sampled_magnitudes(flat, _SAMPLE)
            level = sample.topk(rank, sorted=True).values[-1]
            candidates = (magnitudes > level).nonzero().flatten()
            if candidates.numel() >= count:
                best = magnitudes[candidates].topk(count, sorted=False).indices
                return candidates[best.sort().values]
    return magnitudes.topk(count, sorted=False).indices.sort().values
