"""Compressors of gradients: what a rank sends of a tensor, and what the ranks make of it.

A compressor is a frozen dataclass of its parameters; all that changes is in a
:class:`State`, one for each tensor and rank. It never calls a collective itself:
:meth:`Compressor.exchange` yields the message to send and is given what came back, so one
process can play all ranks (:func:`emulate`) and a hook can send the messages of many
tensors at once (:mod:`elision.training.parallel.hook`).
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import ClassVar, Literal

import torch
from torch import Tensor

__all__ = [
    "Compressor",
    "Exchange",
    "Guarantee",
    "Message",
    "Reply",
    "Settle",
    "State",
    "averaged",
    "emulate",
    "mean_of",
    "mean_of_sum",
    "scattered",
    "scattered_mean",
    "take_out",
    "wire_bits",
]

#: What the mean over many steps owes to compression: nothing is lost; the expected value
#: is the tensor; or it needs the memory of :class:`~elision.training.parallel.Feedback`.
Guarantee = Literal["exact", "unbiased", "biased"]


@dataclass(frozen=True)
class Message:
    """What a rank sends of one tensor.

    Attributes:
        parts: tensors that travel, byte for byte.
        shape: of the tensor that they stand for.
        summed: whether the network may add the messages of the ranks, value by value
            (all-reduce); otherwise every rank is sent those of all others (all-gather).
        places: of the values that are sent, where every rank knows them; not sent.
        finite: False where the compressor has looked (:attr:`Compressor.looks`) and the
            tensor, or what is remembered and the tensor, is not finite; not sent.

    Example:
        >>> Message((torch.zeros(3, dtype=torch.bfloat16),), torch.Size([3])).bits
        48
    """

    parts: tuple[Tensor, ...]
    shape: torch.Size
    summed: bool = False
    places: Tensor | None = None
    finite: bool = True

    @property
    def bits(self) -> int:
        """Bits of the parts as they are sent."""
        return sum(8 * part.numel() * part.itemsize for part in self.parts)


@dataclass
class State:
    """What a compressor knows of one tensor on one rank.

    Attributes:
        name: of the tensor; with ``seed`` and ``step`` it decides the random numbers that
            all ranks share.
        seed: of random numbers.
        rank, ranks: this process, and how many there are.
        step: exchanges so far.
        tensors: what is remembered, by name. A tensor is replaced, never written into,
            so a copy of the dictionary is a copy of the state.
        mask: of the tensor's shape: where its values matter; None: everywhere.
        room: makes uninitialised memory for a message, as ``torch.empty``. The network
            may write the reply into it, so that it holds the message until then.
        out: float32, contiguous, of the tensor's shape: where the mean over ranks may be
            written, and may be the tensor; None: into memory of its own.

    Example:
        >>> one, other = State(name="w", rank=0), State(name="w", rank=1)
        >>> one.shared_seed == other.shared_seed, one.own_seed == other.own_seed
        (True, False)
    """

    name: str = ""
    seed: int = 0
    rank: int = 0
    ranks: int = 1
    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None
    room: Callable[..., Tensor] = field(default_factory=lambda: torch.empty)
    out: Tensor | None = None

    @property
    def own_seed(self) -> int:
        """Seed of the rounding of this step, another one on every rank."""
        return self._seed(self.rank + 1)

    @property
    def shared_seed(self) -> int:
        """Seed of this step that is the same on every rank."""
        return self._seed(0)

    def _seed(self, stream: int) -> int:
        text = f"{self.seed}/{self.name}/{stream}/{self.step}"
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


#: What comes back: the messages' parts added up over ranks in their own dtype, or the
#: messages of all ranks in order.
Reply = Message | list[Message]

#: Takes this rank's share of a mean out of a tensor of its own, in place, and returns it.
Settle = Callable[[Tensor], Tensor]

#: Yields messages, is sent replies, and returns the mean over ranks and what takes this
#: rank's share out of a tensor. The mean over ranks of the shares is the mean.
Exchange = Generator[Message, Reply, tuple[Tensor, Settle]]


@dataclass(frozen=True)
class Compressor(ABC):
    """How a tensor is sent.

    Attributes:
        checksum: whether every message has one, so that a changed bit is found
            (:class:`~elision.training.parallel.wire.CheckedWire`).

    Example:
        >>> from elision.training.parallel import COMPRESSORS
        >>> top = COMPRESSORS["top-k"](share=0.5)
        >>> message = top.compress(torch.tensor([3.0, -1.0, 0.5, -4.0]), State())
        >>> top.decompress(message).tolist()
        [3.0, 0.0, 0.0, -4.0]
    """

    checksum: bool = field(default=False, kw_only=True, repr=False)

    #: Whether the compressor remembers what it did not send, without a wrapper.
    remembers: ClassVar[bool] = False

    @property
    @abstractmethod
    def guarantee(self) -> Guarantee:
        """See :data:`Guarantee`."""

    @property
    def looks(self) -> bool:
        """Whether :attr:`Message.finite` of the first message says if values are finite.

        Then a tensor on the CPU may hold values that are not; no other may.
        """
        return False

    @property
    def valuewise(self) -> bool:
        """Whether each value travels as if it were alone, at every step alike.

        Then tensors that lie one after the other may be sent as one, and what is
        remembered of them has their shapes.
        """
        return False

    @abstractmethod
    def compress(self, tensor: Tensor, state: State) -> Message:
        """What this rank sends of a tensor.

        Args:
            tensor: finite float32 values of any shape (see :attr:`looks`).
            state: of this tensor; its step is counted, and what the compressor remembers
                is replaced in it.
        """

    @abstractmethod
    def decompress(self, message: Message) -> Tensor:
        """The tensor that a message stands for, float32, of its shape."""

    @abstractmethod
    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """Bits of a message by formula; :attr:`Message.bits` are those really sent.

        Args:
            shape: of the tensor.
            state: of a compressor whose messages depend on the step or a mask.
        """

    def exchange(self, tensor: Tensor, state: State) -> Exchange:
        """Send a tensor; what the replies come to, see :data:`Exchange`."""
        message = self.compress(tensor, state)
        reply = yield message
        found = (
            self.mean_of_total(reply, state)
            if isinstance(reply, Message)
            else self.mean(reply)
        )
        return found, lambda tensor: self.settle(tensor, message)

    def remembering(
        self, tensor: Tensor, memory: Tensor | None, state: State
    ) -> Generator[Message, Reply, tuple[Tensor, Settle, Tensor]]:
        """Send ``tensor + memory``; :meth:`exchange`'s results and what is not sent.

        Args:
            tensor: float32.
            memory: of its shape, not written into; None: none yet.
            state: of the tensor.
        """
        if memory is None:
            corrected = tensor.detach().clone(memory_format=torch.contiguous_format)
        else:
            corrected = torch.add(memory, tensor)
        found, settle = yield from self.exchange(corrected, state)
        return found, settle, settle(corrected)

    def mean_of_total(self, total: Message, state: State) -> Tensor:
        """Mean of what messages stand for, float32, from their sum over ranks."""
        return self.decompress(averaged(total, state.ranks))

    def mean(self, messages: Sequence[Message]) -> Tensor:
        """Mean of what the messages stand for, in their order, float32."""
        return mean_of([self.decompress(m) for m in messages])

    def settle(self, tensor: Tensor, message: Message) -> Tensor:
        """Subtract what a message stands for from a contiguous tensor, in place."""
        return tensor.sub_(self.decompress(message))


def wire_bits(message: Message, ranks: int) -> float:
    """Bits that each rank sends so that all have what they need of a message.

    In a ring, an all-reduce sends ``2(p − 1)/p`` messages and an all-gather ``p − 1``.

    Example:
        >>> wire_bits(Message((torch.zeros(4),), torch.Size([4]), summed=True), ranks=2)
        128.0
    """
    share = 2 * (ranks - 1) / ranks if message.summed else ranks - 1
    return message.bits * share


def mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """Mean of tensors, added in their order, so every rank has the same bits."""
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total.div_(len(tensors)) if len(tensors) > 1 else total


def averaged(total: Message, ranks: int) -> Message:
    """The mean, float32, of messages that the network has added up."""
    parts = tuple(mean_of_sum(part, ranks) for part in total.parts)
    return replace(total, parts=parts)


def _summed(messages: Sequence[Message]) -> Message:
    """What an all-reduce makes of messages: sums in their own dtype."""
    parts = zip(*(m.parts for m in messages), strict=True)
    return replace(messages[0], parts=tuple(reduce(torch.add, each) for each in parts))


def mean_of_sum(total: Tensor, ranks: int) -> Tensor:
    """The mean, float32, of a sum in the dtype of the messages; a tensor of its own."""
    return total / ranks if total.dtype == torch.float32 else total.float().div_(ranks)


def emulate(
    compressor: Compressor, tensors: Sequence[Tensor], states: Sequence[State]
) -> tuple[Tensor, list[Tensor]]:
    """One exchange with all ranks in this process.

    Args:
        compressor: of all ranks.
        tensors: one a rank, of one shape.
        states: one a rank.

    Returns:
        The mean that every rank has afterwards, and the shares of the ranks.

    Example:
        >>> from elision.training.parallel import COMPRESSORS
        >>> states = [State(rank=r, ranks=2) for r in range(2)]
        >>> both = [torch.tensor([1.0, 5.0]), torch.tensor([-3.0, 1.0])]
        >>> emulate(COMPRESSORS["top-k"](share=0.5), both, states)[0].tolist()
        [-1.5, 2.5]
    """
    running = [compressor.exchange(t, s) for t, s in zip(tensors, states, strict=True)]
    messages = [next(each) for each in running]
    while True:
        reply: Reply = _summed(messages) if messages[0].summed else list(messages)
        done: list[tuple[Tensor, Settle]] = []
        messages = []
        for each in running:
            try:
                messages.append(each.send(reply))
            except StopIteration as stop:
                done.append(stop.value)
        if done:
            owed = [torch.zeros(tensors[0].shape) for _ in done]
            shares = [
                settle(o).neg_() for (_, settle), o in zip(done, owed, strict=True)
            ]
            return done[0][0], shares


def scattered(values: Tensor, places: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor with these values at these places and zero elsewhere, float32."""
    flat = values.new_zeros(math.prod(shape), dtype=torch.float32)
    flat[places] = values.float()
    return flat.view(*shape)


def scattered_mean(
    sent: Sequence[tuple[Tensor, Tensor]], shape: Sequence[int]
) -> Tensor:
    """Mean of tensors that are zero but for (values, places), in their order, float32."""
    flat = sent[0][0].new_zeros(math.prod(shape), dtype=torch.float32)
    for values, places in sent:
        flat[places] += values.float()
    return flat.div_(len(sent)).view(*shape) if len(sent) > 1 else flat.view(*shape)


def take_out(tensor: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """Subtract values at places of a contiguous tensor, in place."""
    tensor.view(-1)[places] -= values.float()
    return tensor
