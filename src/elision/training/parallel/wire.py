"""Collectives of a compressed exchange: as they are, or with a checksum on every message.

A checksum can only be compared with the bytes that a rank sent, and the sums of an
all-reduce are nobody's bytes. So with checksums the ranks add up themselves: every rank
is sent its part of all messages, adds them in the order of the ranks, and sends the sums
to all. That is as many bytes as a ring sends, and no bit of them goes unchecked.
"""

import zlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor, distributed

__all__ = ["CheckedWire", "CorruptMessageError", "PlainWire", "Wire"]

#: Bytes of a CRC-32.
_CRC = 4


class CorruptMessageError(RuntimeError):
    """Messages whose bytes are not those that were sent.

    Attributes:
        links: (sender, receiver) of each, by their ranks in the group.

    Example:
        >>> print(CorruptMessageError("bucket 0", [(1, 0)]))
        bucket 0: what rank 1 sent to rank 0 arrived with another checksum (CRC-32); ...
    """

    def __init__(self, where: str, links: list[tuple[int, int]]) -> None:
        told = " and ".join(f"what rank {s} sent to rank {r}" for s, r in links)
        super().__init__(
            f"{where}: {told} arrived with another checksum (CRC-32); no gradient of the "
            "bucket was applied: start again from the last checkpoint, and look at the "
            "memory and the network of these machines"
        )
        self.links = links


class Wire(ABC):
    """How tensors travel between the ranks of one group.

    Args:
        group: the processes.
    """

    def __init__(self, group: distributed.ProcessGroup | None) -> None:
        self.group = group
        self.rank = distributed.get_rank(group)
        self.ranks = distributed.get_world_size(group)

    @abstractmethod
    def all_reduce(self, whole: Tensor, where: str) -> float:
        """Replace a flat tensor by its sum over ranks; a collective call.

        Args:
            whole: of the same length and dtype on every rank.
            where: what is sent, for messages.

        Returns:
            Bits that this rank sends.
        """

    @abstractmethod
    def all_gather(self, everyone: list[Tensor], whole: Tensor, where: str) -> float:
        """Fill ``everyone`` with the flat uint8 tensors of all ranks; a collective call.

        Returns:
            Bits that this rank sends.
        """


class PlainWire(Wire):
    """The collectives of ``torch.distributed``; sizes in bits are those of a ring.

    Example:
        >>> distributed.init_process_group(
        ...     "gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> both = torch.ones(2)
        >>> PlainWire(None).all_reduce(both, "bucket 0"), both.tolist()
        (0.0, [1.0, 1.0])
        >>> distributed.destroy_process_group()
    """

    def all_reduce(self, whole: Tensor, where: str) -> float:
        """``2(p − 1)/p`` times the tensor."""
        del where
        distributed.all_reduce(whole, group=self.group)
        return 8 * whole.nbytes * 2 * (self.ranks - 1) / self.ranks

    def all_gather(self, everyone: list[Tensor], whole: Tensor, where: str) -> float:
        """``p − 1`` times the tensor."""
        del where
        distributed.all_gather(everyone, whole, group=self.group)
        return 8.0 * whole.nbytes * (self.ranks - 1)


class CheckedWire(Wire):
    """The same with a CRC-32 on every message, and the receivers' verdicts told to all.

    A CRC-32 finds every change of one or two bits and every burst of up to 32 bits (in a
    message below 512 MiB); of other changes it misses about one in 2**32. It begins at a
    number made of the sender and of the collective, so a message that came late or from
    somebody else is found, too. Checksums are computed on the host.

    The sum over more than two ranks is added in the order of the ranks, which may round
    otherwise than the network does.

    Example:
        >>> distributed.init_process_group(
        ...     "gloo", store=distributed.HashStore(), rank=0, world_size=1)
        >>> both = torch.ones(2)
        >>> CheckedWire(None).all_reduce(both, "bucket 0"), both.tolist()
        (0.0, [1.0, 1.0])
        >>> distributed.destroy_process_group()
    """

    def __init__(self, group: distributed.ProcessGroup | None) -> None:
        super().__init__(group)
        self._collectives = 0
        self._others = [rank for rank in range(self.ranks) if rank != self.rank]
        self._rooms: dict[tuple[str, torch.device], Tensor] = {}

    def all_reduce(self, whole: Tensor, where: str) -> float:
        """Everybody's part to everybody, added there, and the sums to all.

        Raises:
            CorruptMessageError: on every rank, a message changed on its way to any.
        """
        size = -(-len(whole) // self.ranks)
        data = whole.view(torch.uint8)
        padded = self._room("padded", data, self.ranks, size * whole.itemsize)
        padded.view(-1)[: len(data)] = data
        padded.view(-1)[len(data) :] = 0
        sent = self._sealed(padded, travelling=self._others)
        came = self._room("came", sent, *sent.shape)
        distributed.all_to_all_single(came, sent, group=self.group)
        bad = self._broken(came)
        parts = self._room("parts", data, *padded.shape)
        parts.copy_(came[:, :-_CRC])
        total, *others = parts.view(whole.dtype)
        for part in others:
            total += part
        sums, worse = self._gather(total.view(torch.uint8))
        padded.copy_(sums)
        data.copy_(padded.view(-1)[: len(data)])
        verdict = self._agree(bad | worse, where)
        return 8.0 * (self.ranks - 1) * 2 * sent.shape[1] + verdict

    def all_gather(self, everyone: list[Tensor], whole: Tensor, where: str) -> float:
        """Every message with its checksum.

        Raises:
            CorruptMessageError: on every rank, a message changed on its way to any.
        """
        found, bad = self._gather(whole)
        for mine, theirs in zip(everyone, found, strict=True):
            mine.copy_(theirs)
        verdict = self._agree(bad, where)
        return 8.0 * (self.ranks - 1) * (len(whole) + _CRC) + verdict

    def _gather(self, data: Tensor) -> tuple[Tensor, set[int]]:
        """The bytes of every rank as rows, and the ranks whose bytes are broken."""
        sent = self._sealed(data[None], travelling=[0])[0]
        came = self._room("gathered", sent, self.ranks, len(sent))
        distributed.all_gather(list(came.unbind()), sent, group=self.group)
        return came[:, :-_CRC], self._broken(came)

    def _agree(self, bad: set[int], where: str) -> float:
        """Tell every rank what arrived broken anywhere, and raise alike on all."""
        mine = torch.tensor([rank in bad for rank in range(self.ranks)]).byte()
        mine = mine.to(next(iter(self._rooms.values())).device)
        told, unheard = self._gather(mine)
        links = [(rank, self.rank) for rank in sorted(unheard)]
        for receiver, senders in enumerate(told.tolist()):
            if receiver not in unheard:
                links += [
                    (sender, receiver) for sender, flag in enumerate(senders) if flag
                ]
        if links:
            raise CorruptMessageError(where, links)
        return 8.0 * (self.ranks - 1) * (self.ranks + _CRC)

    def _sealed(self, rows: Tensor, travelling: list[int]) -> Tensor:
        """Rows of bytes with room for a checksum each, which those that travel have."""
        self._collectives += 1
        sealed = self._room("sent", rows, len(rows), rows.shape[1] + _CRC)
        sealed[:, :-_CRC] = rows
        host = rows.cpu()
        for row in travelling:
            sealed[row, -_CRC:] = _as_bytes(self._crc(host[row], self.rank))
        return sealed

    def _broken(self, came: Tensor) -> set[int]:
        """Other ranks whose row does not fit its checksum."""
        rows = came.cpu()
        return {
            rank
            for rank in self._others
            if not torch.equal(
                _as_bytes(self._crc(rows[rank, :-_CRC], rank)), rows[rank, -_CRC:]
            )
        }

    def _crc(self, row: Tensor, sender: int) -> int:
        begun = zlib.crc32(f"{self._collectives}/{sender}".encode())
        return zlib.crc32(row.contiguous().numpy().data, begun)

    def _room(self, use: str, like: Tensor, rows: int, columns: int) -> Tensor:
        """Memory for bytes that the next call with this use takes again."""
        key, size = (use, like.device), rows * columns
        if key not in self._rooms or len(self._rooms[key]) < size:
            self._rooms[key] = like.new_empty(size)
        return self._rooms[key][:size].view(rows, columns)


def _as_bytes(checksum: int) -> Tensor:
    return torch.frombuffer(
        bytearray(checksum.to_bytes(_CRC, "little")), dtype=torch.uint8
    )
