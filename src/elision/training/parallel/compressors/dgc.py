"""Deep gradient compression: top-k of what a momentum has gathered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from elision.common.checks import integer, number
from elision.operands.base import share_of
from elision.training.parallel.compressors.base import (
    Compressor,
    Guarantee,
    Message,
    State,
    scattered,
    scattered_mean,
    take_out,
)
from elision.training.parallel.compressors.feedback import MEMORY
from elision.training.parallel.compressors.top_k import (
    largest_places,
    sparse_bits,
    sparse_message,
    sparse_parts,
)

__all__ = ["DGC"]

#: Share of the first stage of the warm-up, and the factor from stage to stage: 25 %,
#: 6.25 %, 1.5625 %, 0.4 %, 0.1 % (Lin et al., section 3.3).
_FIRST = 0.25
_STAGES = 5


@dataclass(frozen=True)
class DGC(Compressor):
    """``u = m·u + clip(g)``; ``v = v + u``; the largest of ``v`` are sent and cleared.

    The momentum is applied here, before the values are chosen, so the optimiser must have
    none (momentum correction). Where a value was sent, ``u`` is cleared, too (factor
    masking). It remembers by itself and takes no :class:`Feedback`.

    Attributes:
        share: of the values, in (0, 1].
        momentum: in [0, 1).
        clip: largest norm of a tensor's gradient over all ranks, so that each rank's is
            at most ``clip / sqrt(ranks)``; 0: none. The paper clips by the norm of the
            whole gradient, which is not known while it is still being computed.
        masking: factor masking.
        warmup: steps in which the share falls from 25 % in five stages, by 4 each.

    Source: Lin et al., Deep Gradient Compression, ICLR 2018, algorithm 4 and section 3.3.

    Example:
        >>> import torch
        >>> state, dgc = State(), DGC(share=0.5, momentum=0.5)
        >>> for _ in range(2):
        ...     sent = dgc.decompress(dgc.compress(torch.tensor([3.0, 2.0]), state))
        >>> sent.tolist(), state.tensors["memory"].tolist()
        ([0.0, 5.0], [3.0, 0.0])
    """

    share: float = 0.001
    momentum: float = 0.9
    clip: float = 0.0
    masking: bool = True
    warmup: int = 0

    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number("DGC", "share", self.share, "(0, 1]")
        number("DGC", "momentum", self.momentum, "[0, 1)")
        number("DGC", "clip", self.clip, ">= 0")
        integer("DGC", "warmup", self.warmup, ">= 0")

    @property
    def guarantee(self) -> Guarantee:
        """Biased, with a memory of its own."""
        return "biased"

    def share_at(self, step: int) -> float:
        """Share of the values that step ``step`` (from 0) sends.

        Example:
            >>> [DGC(warmup=5).share_at(step) for step in (0, 1, 5)]
            [0.25, 0.0625, 0.001]
        """
        if step >= self.warmup:
            return self.share
        return max(self.share, _FIRST ** (1 + _STAGES * step // self.warmup))

    def compress(self, tensor: Tensor, state: State) -> Message:
        """Values of ``v``, then places."""
        flat = tensor.detach().float().flatten()
        if self.clip:
            most = self.clip / state.ranks**0.5
            flat = flat * (most / flat.norm().clamp(min=most))
        kept = state.tensors
        velocity = flat.clone()
        if "velocity" in kept:
            velocity.add_(kept["velocity"], alpha=self.momentum)
        memory = kept[MEMORY] + velocity if MEMORY in kept else velocity.clone()
        count = share_of(self.share_at(state.step), flat.numel())
        places = largest_places(memory, count, "sampled")
        message = sparse_message(memory, places, tensor.shape)
        memory[places] = 0
        if self.masking:
            velocity[places] = 0
        kept |= {"velocity": velocity, MEMORY: memory}
        state.step += 1
        return message

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
        """32 bits a value, and the places; in the warm-up, of the state's next step."""
        step = self.warmup if state is None else state.step
        return sparse_bits(self.share_at(step), shape)
