"""Few signed levels of a scale, rounded at random: QSGD and TernGrad."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import integer, number, one_of
from elision.formats import Integer, fast_round
from elision.memory.codecs.bits import pack_codes, packed_bytes, unpack_codes
from elision.training.parallel.compressors.base import (
    Compressor,
    Guarantee,
    Message,
    State,
)

__all__ = ["QSGD", "TernGrad"]


def _packed(flat: Tensor, scales: Tensor, bits: int, seed: int) -> Tensor:
    """Codes of ``x / scale · s``, rounded at random to −s … s, ``s = 2^(bits − 1) − 1``."""
    levels = 2 ** (bits - 1) - 1
    # The smallest normal number in place of a scale of zeros, whose values are zeros.
    over = flat * (levels / scales.clamp(min=torch.finfo(torch.float32).tiny))
    whole = fast_round(Integer(f"int{bits}", bits), over, "stochastic", seed)
    return pack_codes((whole + levels).to(torch.uint8), bits)


def _unpacked(words: Tensor, scales: Tensor, bits: int, count: int) -> Tensor:
    levels = 2 ** (bits - 1) - 1
    codes = unpack_codes(words, bits, count).float() - levels
    return codes * (scales / levels)


@dataclass(frozen=True)
class QSGD(Compressor):
    """Levels of the block's Euclidean norm, rounded at random: unbiased.

    Codes are of fixed width; the paper's Elias coding would be shorter for few bits.

    Attributes:
        width: bits of a code: 2, 4 or 8, for ``s = 2^(width − 1) − 1`` levels a sign.
        block: values that share a norm (an own choice); 0: all of the tensor.

    Source: Alistarh et al., QSGD, NIPS 2017, section 3.1.

    Example:
        >>> qsgd = QSGD(width=2, block=0)
        >>> message = qsgd.compress(torch.tensor([0.0, -2.0, 0.0]), State())
        >>> qsgd.decompress(message).tolist(), message.bits
        ([0.0, -2.0, 0.0], 48)
    """

    width: int = 4
    block: int = 512

    def __post_init__(self) -> None:
        one_of("QSGD", "width", self.width, (2, 4, 8))
        integer("QSGD", "block", self.block, ">= 0")

    @property
    def guarantee(self) -> Guarantee:
        """Rounding is at random."""
        return "unbiased"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """Packed codes, then norms."""
        flat = tensor.detach().float().flatten()
        count, block = flat.numel(), self.block or flat.numel()
        short = -count % block
        rows = (torch.cat((flat, flat.new_zeros(short))) if short else flat).view(
            -1, block
        )
        norms = rows.norm(dim=1)
        spread = norms.repeat_interleave(block)[:count]
        words = _packed(flat, spread, self.width, state.own_seed)
        state.step += 1
        return Message((words, norms), tensor.shape)

    def decompress(self, message: Message) -> Tensor:
        """Levels times norms."""
        words, norms = message.parts
        count = math.prod(message.shape)
        spread = norms.repeat_interleave(self.block or count)[:count]
        return _unpacked(words, spread, self.width, count).view(message.shape)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """``width`` a value, in whole groups of eight, and 32 a norm."""
        del state
        size = math.prod(shape)
        return 8 * packed_bytes(size, self.width) + 32 * -(
            -size // (self.block or size)
        )


@dataclass(frozen=True)
class TernGrad(Compressor):
    """``max|x| · sign(x) · b``, where ``b`` is 1 with probability ``|x| / max|x|``.

    Each rank has a scale of its own: the messages are gathered, not added.

    Attributes:
        clip: values beyond so many standard deviations become that first, which makes
            the result biased; 0: none. The paper clips at 2.5.

    Source: Wen et al., TernGrad, NIPS 2017, equations 2 to 4 and 11.

    Example:
        >>> message = TernGrad().compress(torch.tensor([0.0, -2.0, 2.0]), State())
        >>> TernGrad().decompress(message).tolist(), message.bits
        ([0.0, -2.0, 2.0], 48)
    """

    clip: float = 0.0

    def __post_init__(self) -> None:
        number("TernGrad", "clip", self.clip, ">= 0")

    @property
    def guarantee(self) -> Guarantee:
        """Unbiased without clipping."""
        return "biased" if self.clip else "unbiased"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """Packed codes of two bits, then the scale."""
        flat = tensor.detach().float().flatten()
        if self.clip:
            most = self.clip * flat.std(correction=0)
            flat = torch.minimum(torch.maximum(flat, -most), most)
        low, high = flat.aminmax()
        scale = torch.maximum(-low, high)[None]
        words = _packed(flat, scale, 2, state.own_seed)
        state.step += 1
        return Message((words, scale), tensor.shape)

    def decompress(self, message: Message) -> Tensor:
        """Signs times the scale."""
        words, scale = message.parts
        count = math.prod(message.shape)
        return _unpacked(words, scale, 2, count).view(message.shape)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """Two a value, in whole groups of eight, and 32."""
        del state
        return 8 * packed_bytes(math.prod(shape), 2) + 32
