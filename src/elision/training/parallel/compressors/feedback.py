"""Error feedback: what was not sent is added to the next tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elision.training.parallel.compressors.base import (
    Compressor,
    Exchange,
    Guarantee,
    Message,
    State,
)

__all__ = ["Feedback"]

#: Name of the memory in :attr:`State.tensors`.
MEMORY = "memory"


@dataclass(frozen=True)
class Feedback(Compressor):
    """Any compressor with a memory: ``u = g + e``; send ``C(u)``; ``e = u − share``.

    The share is what this rank contributed to the mean that was applied. So, over any
    number of steps, what was applied and the mean of what is remembered add up to the
    mean of the gradients.

    Attributes:
        inner: what sends ``u``.

    Source: Karimireddy et al., Error Feedback Fixes SignSGD and other Gradient
    Compression Schemes, ICML 2019, algorithm 2.

    Example:
        >>> import torch
        >>> from elision.training.parallel import COMPRESSORS
        >>> state, top = State(), Feedback(COMPRESSORS["top-k"](share=0.5))
        >>> for _ in range(2):
        ...     sent = top.decompress(top.compress(torch.tensor([3.0, 2.0]), state))
        >>> sent.tolist(), state.tensors["memory"].tolist()
        ([0.0, 4.0], [3.0, 0.0])
    """

    inner: Compressor

    remembers: ClassVar[bool] = True

    @property
    def guarantee(self) -> Guarantee:
        """The inner one's."""
        return self.inner.guarantee

    @property
    def valuewise(self) -> bool:
        """Whether the inner one is; the memory is of each value, too."""
        return self.inner.valuewise

    @property
    def looks(self) -> bool:
        """Whether the inner one looks."""
        return self.inner.looks

    def compress(self, tensor: Tensor, state: State) -> Message:
        """As :meth:`exchange` would with one rank."""
        memory = state.tensors.get(MEMORY)
        values = tensor.detach().float()
        corrected = values.clone() if memory is None else torch.add(memory, values)
        message = self.inner.compress(corrected.contiguous(), state)
        state.tensors[MEMORY] = self.inner.settle(corrected, message)
        return message

    def decompress(self, message: Message) -> Tensor:
        """The inner one's."""
        return self.inner.decompress(message)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """The inner one's."""
        return self.inner.bits(shape, state)

    def exchange(self, tensor: Tensor, state: State) -> Exchange:
        """Send the tensor and what is remembered."""
        memory = state.tensors.get(MEMORY)
        mean, settle, left = yield from self.inner.remembering(tensor, memory, state)
        state.tensors[MEMORY] = left
        return mean, settle
