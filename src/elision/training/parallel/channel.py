"""Channel: compressed tensors of several ranks, exchanged by collectives of one group."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from elision.training.parallel.compressors import Compressor, Message, State, wire_bits
from elision.training.parallel.compressors.base import Exchange, Reply
from elision.training.parallel.wire import Wire

__all__ = ["Channel", "Traffic"]


@dataclass
class Traffic:
    """Bits of one rank's gradients since the hook was made.

    Attributes:
        dense: of the gradients as they are.
        messages: of the compressed messages.
        sent: that this rank sends in a ring, with the one value a message that says
            whether the gradients were finite, and with checksums.
        dense_sent: that it would send for the gradients as they are.

    Example:
        >>> Traffic(dense=3200, messages=100).ratio
        32.0
    """

    dense: float = 0
    messages: float = 0
    sent: float = 0
    dense_sent: float = 0

    @property
    def ratio(self) -> float:
        """Gradient bits by message bits, before what gathering costs."""
        return self.dense / self.messages if self.messages else 1.0

    @property
    def wire_ratio(self) -> float:
        """Bits sent without compression by bits sent, gathering counted."""
        return self.dense_sent / self.sent if self.sent else 1.0


class Channel:
    """The exchange of lists of tensors through a compressor, one list a process.

    Args:
        wire: collectives of the processes.

    Attributes:
        wire: likewise.
        traffic: what this process sent so far.

    Example:
        >>> from torch import distributed
        >>> from elision.training.parallel.compressors import make_compressor
        >>> from elision.training.parallel.wire import PlainWire
        >>> distributed.init_process_group(
        ...     "gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> channel, half = Channel(PlainWire(None)), make_compressor("bf16")
        >>> channel.exchange(half, [torch.ones(2)], [State()])
        ([tensor([1., 1.])], True)
        >>> channel.traffic.messages
        32
        >>> distributed.destroy_process_group()
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.traffic = Traffic()
        self._rooms: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}
        self._capacity = 0
        self._taken: dict[torch.dtype, int] = {}

    def exchange(
        self,
        compressor: Compressor,
        values: Sequence[Tensor],
        states: Sequence[State],
        *,
        healthy: bool = True,
        where: str = "exchange",
    ) -> tuple[list[Tensor], bool]:
        """The mean over ranks of each tensor (a collective call).

        Args:
            compressor: of every tensor.
            values: contiguous float32 tensors, alike in number and shape on all ranks;
                finite, where the compressor does not look by itself.
            states: one a tensor, changed in place.
            healthy: whether the values of this rank are what they should be.
            where: what is sent, for messages.

        Returns:
            The means, and whether all ranks were healthy and their values finite; where
            they were not, the means are NaN and the states half changed.
        """
        # One value more: it tells who is healthy.
        self._capacity = 1 + sum(value.numel() for value in values)
        self._taken = {}
        for state in states:
            state.room = self._take
        try:
            return self._exchanged(compressor, values, states, healthy, where)
        finally:
            for state in states:
                state.room = torch.empty

    def _exchanged(
        self,
        compressor: Compressor,
        values: Sequence[Tensor],
        states: Sequence[State],
        healthy: bool,
        where: str,
    ) -> tuple[list[Tensor], bool]:
        running: dict[int, Exchange] = {
            i: compressor.exchange(value, state)
            for i, (value, state) in enumerate(zip(values, states, strict=True))
        }
        means: dict[int, Tensor] = {}
        messages = {i: next(each) for i, each in running.items()}
        healthy = healthy and all(message.finite for message in messages.values())
        while messages:
            replies, everyone = self._collective(messages, healthy, where)
            if not everyone:  # every rank knows, and none goes on
                return [torch.full_like(value, torch.nan) for value in values], False
            messages = {}
            for i, reply in replies.items():
                try:
                    messages[i] = running[i].send(reply)
                except StopIteration as stop:
                    means[i] = stop.value[0]
        return [means[i] for i in range(len(values))], True

    def count_dense(self, values: Tensor) -> None:
        """Count values as they would travel without compression, by an all-reduce."""
        self.traffic.dense += 8 * values.nbytes
        self.traffic.dense_sent += wire_bits(
            Message((values,), values.shape, summed=True), self.wire.ranks
        )

    def _collective(
        self, messages: dict[int, Message], healthy: bool, where: str
    ) -> tuple[dict[int, Reply], bool]:
        """One collective for the messages of each kind, in the order of the first of each."""
        kinds: dict[torch.dtype | None, list[int]] = {}
        for i, message in messages.items():
            kind = message.parts[0].dtype if message.summed else None
            kinds.setdefault(kind, []).append(i)
        replies: dict[int, Reply] = {}
        everyone = True
        for kind, own in kinds.items():
            mine = [messages[i] for i in own]
            exchange = self._gathered if kind is None else self._summed
            found, all_healthy = exchange(mine, healthy, where)
            replies |= dict(zip(own, found, strict=True))
            everyone = everyone and all_healthy
            self.traffic.messages += sum(message.bits for message in mine)
        return replies, everyone

    def _summed(
        self, messages: list[Message], healthy: bool, where: str
    ) -> tuple[list[Reply], bool]:
        """All-reduce; one more value counts the ranks whose gradients are not finite."""
        flat = [part.flatten() for message in messages for part in message.parts]
        whole = self._joined([*flat, flat[0].new_full((1,), not healthy)], 0)
        self.traffic.sent += self.wire.all_reduce(whole, where)
        *sums, ill = whole.split([*(len(part) for part in flat), 1])
        of_part = iter(sums)
        replies: list[Reply] = [
            replace(m, parts=tuple(next(of_part).view(p.shape) for p in m.parts))
            for m in messages
        ]
        return replies, not ill.item()

    def _gathered(
        self, messages: list[Message], healthy: bool, where: str
    ) -> tuple[list[Reply], bool]:
        """All-gather of the bytes; one more says whether the gradients are finite."""
        parts = [part for message in messages for part in message.parts]
        data = [part.contiguous().view(torch.uint8) for part in parts]
        whole = self._joined([*data, data[0].new_full((1,), not healthy)], 0)
        everyone = [self._room(whole, 1 + rank) for rank in range(self.wire.ranks)]
        self.traffic.sent += self.wire.all_gather(everyone, whole, where)
        sizes = [*(len(part) for part in data), 1]
        of_rank = [iter(each.split(sizes)) for each in everyone]
        replies: list[Reply] = [
            [
                # A copy, since bytes of any offset are read as numbers.
                replace(
                    m, parts=tuple(next(own).clone().view(p.dtype) for p in m.parts)
                )
                for own in of_rank
            ]
            for m in messages
        ]
        return replies, not any(next(own).item() for own in of_rank)

    def _joined(self, parts: list[Tensor], slot: int) -> Tensor:
        """The parts one after the other, in memory of :meth:`_room`."""
        sizes = [len(part) for part in parts]
        whole = self._room(parts[0], slot, sum(sizes))
        *taken, last = zip(whole.split(sizes), parts, strict=True)
        if all(place.data_ptr() == part.data_ptr() for place, part in taken):
            last[0].copy_(last[1])
            return whole
        memory = whole.untyped_storage().data_ptr()
        if any(part.untyped_storage().data_ptr() == memory for part in parts):
            return torch.cat(parts)
        return torch.cat(parts, out=whole)

    def _take(self, size: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for a part, such that the parts of messages lie one after the other."""
        begin = self._taken.get(dtype, 0)
        if begin + size >= self._capacity:
            return torch.empty(size, dtype=dtype, device=device)
        self._taken[dtype] = begin + size
        like = torch.empty(0, dtype=dtype, device=device)
        return self._room(like, 0, self._capacity)[begin : begin + size]

    def _room(self, like: Tensor, slot: int, size: int | None = None) -> Tensor:
        """Memory that the next collective with this slot and dtype takes again.

        A fresh tensor costs a page fault for every 4 KiB. Collectives follow one another,
        and what is made of a reply is a tensor of its own.
        """
        size = like.numel() if size is None else size
        key = slot, like.dtype, like.device
        if key not in self._rooms or len(self._rooms[key]) < size:
            self._rooms[key] = like.new_empty(size)
        return self._rooms[key][:size]
