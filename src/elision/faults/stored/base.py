"""A tensor as the bits that a memory holds, in named parts."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from elision.common.checks import one_of
from elision.common.names import lookup

__all__ = ["ACTIONS", "Action", "Part", "Stored", "changed_words"]

#: What happens to a bit: it is inverted, or it reads as 0 or as 1 whatever is written.
Action = Literal["flip", "stuck-at-0", "stuck-at-1"]

ACTIONS: tuple[Action, ...] = ("flip", "stuck-at-0", "stuck-at-1")


@dataclass(frozen=True)
class Part:
    """Words of one kind: codes of values, scales, places.

    Attributes:
        words: integers of any shape and of an integer dtype; the low ``bits`` bits of each
            are stored.
        bits: width of a stored word, up to 64.

    Example:
        >>> Part(torch.zeros(4, dtype=torch.int16), 16).size_bits
        64
    """

    words: Tensor
    bits: int

    @property
    def size_bits(self) -> int:
        """Bits of all words."""
        return self.words.numel() * self.bits


@dataclass(frozen=True)
class Stored(ABC):
    """A tensor in its stored form; a fault changes words of a part.

    Attributes:
        parts: by name; ``"values"`` are the codes of the elements.
        dtype: of :meth:`values`.

    Example:
        >>> from elision.faults import stored_as
        >>> held = stored_as(torch.tensor([1.0, 2.0]), "int8")
        >>> {name: part.size_bits for name, part in held.parts.items()}
        {'values': 16, 'scales.0': 32}
        >>> held.changed("values", [0], [6]).values()
        tensor([0., 2.])
    """

    parts: dict[str, Part]
    dtype: torch.dtype

    @abstractmethod
    def values(self) -> Tensor:
        """The tensor that these bits stand for, of its shape and dtype."""

    @property
    def size_bits(self) -> int:
        """Bits of all parts."""
        return sum(part.size_bits for part in self.parts.values())

    def changed(
        self,
        part: str,
        index: Tensor | list[int],
        bit: Tensor | list[int],
        action: Action = "flip",
    ) -> Self:
        """This tensor after faults in some of its bits.

        Args:
            part: name of the part.
            index: places in the flattened words, ``(F,)``.
            bit: position in the word of each, 0 the least significant, ``(F,)``.
            action: what happens to these bits.

        Raises:
            ValueError: an unknown part or action, or a place or bit outside of it.
        """
        found = lookup("part", part, self.parts)
        words = changed_words(
            found, torch.as_tensor(index), torch.as_tensor(bit), action
        )
        return replace(self, parts={**self.parts, part: Part(words, found.bits)})


def changed_words(part: Part, index: Tensor, bit: Tensor, action: Action) -> Tensor:
    """The words after faults; a bit that flips twice is as before.

    Args and errors are those of :meth:`Stored.changed`.

    Example:
        >>> part = Part(torch.tensor([0, 5]), 3)
        >>> changed_words(part, torch.tensor([0, 1, 1]), torch.tensor([2, 0, 0]), "flip")
        tensor([4, 5])
    """
    one_of("fault", "action", action, ACTIONS)
    index, bit = torch.broadcast_tensors(index.long(), bit.long())
    _inside("index", index, part.words.numel(), "words")
    _inside("bit", bit, part.bits, "bits a word")
    words = part.words.clone(memory_format=torch.contiguous_format)
    flat = words.view(-1)
    for position in bit.unique().tolist():
        places = index[bit == position]
        if action == "flip":
            places, times = places.unique(return_counts=True)
            places = places[times % 2 == 1]
        mask = _mask(position, words.dtype)
        if action == "stuck-at-0":
            flat[places] = flat[places] & ~mask
        elif action == "stuck-at-1":
            flat[places] = flat[places] | mask
        else:
            flat[places] = flat[places] ^ mask
    return words


def _mask(position: int, dtype: torch.dtype) -> Tensor:
    """The word in which this bit alone is set; the top one is negative if signed."""
    bits = torch.iinfo(dtype).bits
    top = position == bits - 1 and dtype.is_signed
    return torch.tensor(-(1 << position) if top else 1 << position, dtype=dtype)


def _inside(what: str, given: Tensor, size: int, unit: str) -> None:
    outside = given[(given < 0) | (given >= size)]
    if outside.numel():
        raise ValueError(
            f"fault({what}={int(outside[0])}): must be in [0, {size}): there are "
            f"{size} {unit}"
        )
