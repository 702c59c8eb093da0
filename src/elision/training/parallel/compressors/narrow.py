"""Sixteen-bit floating point: bf16 and fp16, which the network adds up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from elision.common.checks import one_of
from elision.formats import FLOATS, fast_round
from elision.training.parallel.compressors.base import (
    Compressor,
    Guarantee,
    Message,
    State,
)

__all__ = ["BF16", "FP16"]


@dataclass(frozen=True)
class _Narrow(Compressor):
    """Values in a format of 16 bits; an all-reduce adds them in that format.

    What the additions round away is not remembered: on two ranks it is at most half a
    unit in the last place of each sum.

    Attributes:
        rounding: ``"nearest"``, or ``"stochastic"``, which is unbiased.
    """

    rounding: Literal["nearest", "stochastic"] = "nearest"

    format: ClassVar[str]

    def __post_init__(self) -> None:
        one_of(self.format, "rounding", self.rounding, ("nearest", "stochastic"))

    @property
    def guarantee(self) -> Guarantee:
        """Unbiased with stochastic rounding."""
        return "biased" if self.rounding == "nearest" else "unbiased"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """The rounded values; what a sum over ranks could not hold becomes the most it can."""
        format = FLOATS[self.format]
        dtype = format.dtype
        assert dtype is not None
        values = tensor.detach().float().flatten()
        if self.rounding == "stochastic":
            values = fast_round(format, values, "stochastic", state.own_seed)
        sent = values.to(dtype)
        if format.largest < FLOATS["fp32"].largest / state.ranks:
            most = format.largest / state.ranks
            sent.clamp_(-most, most)
        state.step += 1
        return Message((sent,), tensor.shape, summed=True)

    def decompress(self, message: Message) -> Tensor:
        """The values, float32."""
        return message.parts[0].float().view(message.shape)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """``16n``."""
        del state
        return 16 * math.prod(shape)


@dataclass(frozen=True)
class BF16(_Narrow):
    """bfloat16; see :class:`~elision.training.parallel.compressors.base.Compressor`.

    Attributes:
        rounding: ``"nearest"``, or ``"stochastic"``, which is unbiased.

    Example:
        >>> import torch
        >>> sent = BF16().compress(torch.tensor([1.0, 257.0]), State())
        >>> BF16().decompress(sent).tolist(), sent.bits
        ([1.0, 256.0], 32)
    """

    format = "bf16"


@dataclass(frozen=True)
class FP16(_Narrow):
    """IEEE's half precision; beyond ``65504 / ranks`` a value is sent as that.

    Attributes:
        rounding: ``"nearest"``, or ``"stochastic"``, which is unbiased.

    Example:
        >>> import torch
        >>> sent = FP16().compress(torch.tensor([1.0, 1e6]), State(ranks=2))
        >>> FP16().decompress(sent).tolist()
        [1.0, 32752.0]
    """

    format = "fp16"
