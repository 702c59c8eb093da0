"""One bit a value: the ranks vote on the sign."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.memory.codecs.bits import pack_bits, packed_bytes, unpack_codes
from elision.training.parallel.compressors.base import (
    Compressor,
    Exchange,
    Guarantee,
    Message,
    State,
    mean_of,
)

__all__ = ["Sign"]


@dataclass(frozen=True)
class Sign(Compressor):
    """Signs and the mean magnitude; what is applied is ``mean scale · sign(Σ signs)``.

    A tie gives zero, and zero counts as positive.

    Source: Bernstein et al., signSGD with Majority Vote is Communication Efficient and
    Fault Tolerant, ICLR 2019, algorithm 1; the scale is that of Karimireddy et al., Error
    Feedback Fixes SignSGD, ICML 2019, algorithm 1.

    Example:
        >>> message = Sign().compress(torch.tensor([1.0, -3.0]), State())
        >>> Sign().decompress(message).tolist(), message.bits
        ([2.0, -2.0], 40)
    """

    @property
    def guarantee(self) -> Guarantee:
        """The magnitudes are lost."""
        return "biased"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """Packed signs, then the scale."""
        flat = tensor.detach().float().flatten()
        state.step += 1
        return Message((pack_bits(flat >= 0), flat.abs().mean()[None]), tensor.shape)

    def decompress(self, message: Message) -> Tensor:
        """Signs times the scale."""
        return (self._signs(message).float() * message.parts[1]).view(message.shape)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """One a value, in whole bytes, and 32."""
        del state
        return 8 * packed_bytes(math.prod(shape), 1) + 32

    def exchange(self, tensor: Tensor, state: State) -> Exchange:
        """Vote; the share of a rank in the result is the result."""
        reply = yield self.compress(tensor, state)
        assert isinstance(reply, list)
        votes = sum((self._signs(m).int() for m in reply[1:]), self._signs(reply[0]))
        scale = mean_of([m.parts[1] for m in reply])
        found = (votes.sign().float() * scale).view(tensor.shape)
        return found, lambda tensor: tensor.sub_(found)

    def _signs(self, message: Message) -> Tensor:
        """1 and −1, int8."""
        words = message.parts[0]
        bits = unpack_codes(words, 1, math.prod(message.shape))
        return bits.to(torch.int8) * 2 - 1
