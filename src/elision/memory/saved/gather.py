"""Small tensors, packed many at a time.

To pack a tensor takes a few dozen calls, which for the small ones of an unrolled
recurrent network are many times the work of the layer that saves them. What a module
saves over and over is therefore gathered and packed one below the other, as the rows of
one tensor.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import torch

from elision.memory.saved.codec import Codec, Packed
from elision.memory.saved.ledger import Row
from elision.memory.saved.regions import Region
from elision.memory.saved.roles import Slot
from elision.memory.saved.tag import content_tag, content_tags
from elision.memory.saved.token import CodecEntry

__all__ = ["GATHERED", "Gather", "Part"]

#: Bytes from which a tensor is worth its own calls, and bytes that are packed at once
#: (own choices).
GATHERED, _FULL = 2**16, 2**18


class Part(CodecEntry):
    """One of the tensors of a gather: itself at first, then rows of the packed whole.

    Args:
        tensor: the tensor, at least one axis, contiguous.
        codec: the first that will be tried.
        region: the memory that it lies in.

    Attributes:
        tensor: the tensor itself, as long as it is not packed.
        region: the memory that it lies in.
    """

    def __init__(self, tensor: torch.Tensor, codec: Codec, region: Region) -> None:
        self.tensor: torch.Tensor | None = tensor
        self.codec, self.region = codec, region
        self.keeps_sign = False
        self._rows: list[Row] = []

    def hand_over(self, whole: "_Whole", first: int, nbytes: int) -> None:
        """Let rows of ``whole`` from ``first`` on hold it.

        Args:
            whole: all tensors of the gather.
            first: number of the first row.
            nbytes: share of the packed bytes.
        """
        assert self.tensor is not None
        self._whole, self._place = whole, (first, len(self.tensor))
        self.tensor, self.codec = None, whole.codec
        self.keeps_sign = whole.keeps_sign
        for row in self._rows:
            whole.describe(row)
        self._rows[0].stored_bytes = nbytes

    def give_up(self, note: str) -> None:
        """Let the tokens hold the tensor after all."""
        assert self.tensor is not None
        for row in self._rows:
            row.note = note
        self.region.take_back(self.tensor)

    def restore(self) -> torch.Tensor:
        """The tensor."""
        if self.tensor is not None:
            return self.tensor
        return self._whole.values().narrow(0, *self._place)

    def restore_sign(self) -> torch.Tensor:
        """1 where the tensor is positive, else 0."""
        if self.tensor is not None:
            return (self.tensor <= 0).logical_not_().to(self.tensor.dtype)
        return self._whole.signs().narrow(0, *self._place)

    def describe(self, row: Row) -> None:
        """Enter the codec and its declared error, now or when they are known."""
        if self.tensor is None:
            self._whole.describe(row)
        else:
            self._rows.append(row)


class _Whole:
    """The packed tensors of a gather.

    What is unpacked stays until each of its parts has been asked for once: the backward
    pass reads them in a row.
    """

    def __init__(self, codec: Codec, packed: Packed, parts: int) -> None:
        self.codec, self.keeps_sign = codec, codec.keeps_sign(packed)
        self._packed, self._parts = packed, parts
        self._unpacked: dict[Any, tuple[torch.Tensor, int]] = {}

    def describe(self, row: Row) -> None:
        """Enter the codec and its declared error."""
        row.codec, row.guarantee = self.codec.name, self.codec.guarantee
        row.bound = self.codec.bound(self._packed)

    def values(self) -> torch.Tensor:
        """All rows."""
        return self._once(self.codec.unpack)

    def signs(self) -> torch.Tensor:
        """The mask of all rows."""
        return self._once(self.codec.unpack_sign)

    def _once(self, unpack: Any) -> torch.Tensor:
        name = unpack.__name__
        values, left = self._unpacked.pop(name, (None, self._parts))
        if values is None:
            values = unpack(self._packed)
        if left > 1:
            self._unpacked[name] = values, left - 1
        return values


class Gather:
    """Tensors of one kind that wait to be packed together.

    Args:
        codecs: to try, in order.
        slot: of one of them; codecs get it without its node.
    """

    def __init__(self, codecs: Sequence[Codec], slot: Slot) -> None:
        self._codecs = codecs
        self._slot = slot.without_graph()
        self._parts: list[weakref.ref[Part]] = []
        self._nbytes = 0

    def add(self, tensor: torch.Tensor, region: Region) -> Part:
        """Take one more; its part keeps it in the gather."""
        part = Part(tensor, self._codecs[0], region)
        self._parts.append(weakref.ref(part))
        self._nbytes += tensor.nbytes
        return part

    @property
    def full(self) -> bool:
        """True if they are enough to be packed."""
        return self._nbytes >= _FULL

    def pack(self, keep: bool = False) -> None:
        """Pack those that are still wanted, or let the tokens keep them."""
        found = [p for p in (r() for r in self._parts) if p is not None]
        parts = [p for p in found if p.tensor is not None]
        self._parts.clear()
        self._nbytes = 0
        if not parts:
            return
        for part in parts if keep else ():
            part.give_up("the block ended with an error")
        if keep:
            return
        tensors = [p.tensor for p in parts if p.tensor is not None]
        whole = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        for codec in self._codecs:
            packed = codec.pack(whole, self._slot)
            if packed is not None:
                self._hand_over(codec, packed, parts, whole)
                return
        for part in parts:
            part.give_up(f"not finite, or not for {self._codecs[-1]}")

    def _hand_over(
        self, codec: Codec, packed: Packed, parts: list[Part], whole: torch.Tensor
    ) -> None:
        counts = [len(part.tensor) for part in parts if part.tensor is not None]
        if len(set(counts)) == 1:
            tags = content_tags(whole, len(parts))
        else:
            tags = [content_tag(rows) for rows in whole.split(counts)]
        shared = _Whole(codec, packed, len(parts))
        first = stored = 0
        for part, count, tag in zip(parts, counts, tags, strict=True):
            last = first + count
            until = packed.nbytes * last // len(whole)
            part.hand_over(shared, first, until - stored)
            first, stored = last, until
            part.region.mark(tag)
            if shared.keeps_sign:
                part.region.read_signs_from(part, codec.name)
