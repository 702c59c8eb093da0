"""Sixteen-bit floating point: bf16 and fp16, which the network adds up."""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from elision.common.checks import one_of
from elision.formats import FLOATS, fast_round
from elision.training.parallel.compressors.base import (
    Compressor,
    Guarantee,
    Message,
    Reply,
    Settle,
    State,
)
from elision.training.parallel.compressors.halves import narrowed, widened

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

    @property
    def looks(self) -> bool:
        """In the pass that rounds."""
        return True

    @property
    def valuewise(self) -> bool:
        """Unless by random numbers, which depend on a value's place in its tensor."""
        return self.rounding == "nearest"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """The rounded values; what a sum over ranks could not hold becomes the most it can."""
        return self._sent(tensor, None, state, keep=False)[0]

    def remembering(
        self, tensor: Tensor, memory: Tensor | None, state: State
    ) -> Generator[Message, Reply, tuple[Tensor, Settle, Tensor]]:
        """What is not sent is found in the pass that rounds."""
        message, left = self._sent(tensor, memory, state, keep=True)
        assert left is not None
        total = yield message
        assert isinstance(total, Message)
        found = self.mean_of_total(total, state)
        return found, lambda tensor: self.settle(tensor, message), left

    def mean_of_total(self, total: Message, state: State) -> Tensor:
        """Widened and divided in one pass."""
        out = state.out
        if out is None:
            out = total.parts[0].new_empty(total.shape, dtype=torch.float32)
        return widened(total.parts[0], state.ranks, out)

    def decompress(self, message: Message) -> Tensor:
        """The values, float32."""
        return message.parts[0].float().view(message.shape)

    def _sent(
        self, tensor: Tensor, memory: Tensor | None, state: State, *, keep: bool
    ) -> tuple[Message, Tensor | None]:
        """The message of ``tensor + memory``, and what it leaves."""
        values, dtype = tensor.detach().float(), FLOATS[self.format].dtype
        sent = state.room(values.numel(), dtype=dtype, device=values.device)
        most = self._most(state.ranks)
        if self.rounding == "nearest":
            left, finite = narrowed(values, memory, sent, most, keep=keep)
        else:
            values = values if memory is None else memory + values
            format = FLOATS[self.format]
            rounded = fast_round(format, values, "stochastic", state.own_seed)
            _, finite = narrowed(rounded, None, sent, most, keep=False)
            left = values.sub(sent.view(values.shape)).contiguous() if keep else None
        state.step += 1
        return Message((sent,), tensor.shape, summed=True, finite=finite), left

    def _most(self, ranks: int) -> float:
        """The largest value of the format of which a sum over ranks stays in it."""
        format = FLOATS[self.format]
        if format.largest >= FLOATS["fp32"].largest / ranks:
            return math.inf
        # Towards zero: the nearest to a third of 65504 is more than a third of it.
        nearest = torch.tensor(format.largest / ranks, dtype=format.dtype)
        if nearest.item() * ranks > format.largest:
            nearest = torch.nextafter(nearest, torch.zeros_like(nearest))
        return nearest.item()

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
