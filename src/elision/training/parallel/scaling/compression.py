"""Compression: what a bucket's message costs, as the scaling model reads it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from elision.common.checks import number

__all__ = ["Coded", "Compressed", "Compression", "break_even"]

#: Bytes of a gradient's value without compression.
FLOAT32 = 4


class Coded(NamedTuple):
    """A bucket's message.

    Attributes:
        summed: bytes that are added on the way (all-reduce).
        gathered: bytes that every rank is sent of every other (all-gather).
        once: seconds to make the message, and to read a sum.
        each: seconds to read one rank's gathered message.
        rounds: collectives of the summed bytes, one after the other.

    Example:
        >>> Coded(gathered=10.0, once=1.0, each=0.5).seconds(ranks=4)
        3.0
    """

    summed: float = 0.0
    gathered: float = 0.0
    once: float = 0.0
    each: float = 0.0
    rounds: int = 1

    @classmethod
    def together(cls, messages: Iterable["Coded"]) -> "Coded":
        """The messages of gradients that travel in one bucket."""
        own = list(messages)
        return cls(
            sum(m.summed for m in own),
            sum(m.gathered for m in own),
            sum(m.once for m in own),
            sum(m.each for m in own),
            max((m.rounds for m in own), default=1),
        )

    def seconds(self, ranks: int) -> float:
        """Seconds of a rank to make its message and to read what comes back."""
        return self.once + self.each * ranks


class Compressed(Protocol):
    """What tells the message of a bucket.

    Example:
        >>> kind: Compressed = Compression(bits=16)
        >>> kind.coded(slice(0, 2), [400.0, 400.0]).summed
        400.0
    """

    def coded(self, places: slice, sizes: Sequence[float]) -> Coded:
        """The message of a bucket.

        Args:
            places: of the bucket's gradients, in the order in which they are ready.
            sizes: bytes of each of them, float32.
        """
        ...


@dataclass(frozen=True)
class Compression:
    """Bits and seconds of a compressed message, the same for every value.

    Attributes:
        bits: sent for each value, indices and scales included.
        seconds_per_value: of compressing and decompressing a value once.
        gathered: whether every rank receives every other's message, because messages
            cannot be added on the way; each of them is decompressed, too.

    Raises:
        ValueError: bits that are not positive, or negative seconds.

    Example:
        >>> Compression(bits=16).size(1000)
        2000.0
    """

    bits: float
    seconds_per_value: float = 0.0
    gathered: bool = False

    def __post_init__(self) -> None:
        number("Compression", "bits", self.bits, "> 0")
        number("Compression", "seconds_per_value", self.seconds_per_value, ">= 0")

    def size(self, values: float) -> float:
        """Bytes of a message of so many values."""
        return values * self.bits / 8

    def seconds(self, values: float) -> float:
        """Seconds to compress and decompress a message."""
        return values * self.seconds_per_value

    def coded(self, places: slice, sizes: Sequence[float]) -> Coded:
        """As in :class:`Compressed`."""
        del places
        values = sum(sizes) / FLOAT32
        size, seconds = self.size(values), self.seconds(values)
        if self.gathered:
            return Coded(gathered=size, each=seconds)
        return Coded(summed=size, once=seconds)


def break_even(size: float, compressed: float, seconds: float) -> float:
    """Bandwidth below which a compressed bucket is sent sooner than a plain one.

    ``seconds + compressed / B < size / B``, with the whole transfer exposed; a transfer
    hidden behind the backward pass gains nothing from being shorter.

    Args:
        size: bytes of the plain bucket on the wire.
        compressed: bytes of the compressed one.
        seconds: of compressing and decompressing.

    Returns:
        Bytes per second; infinite where compression costs no time, 0 where it saves no
        byte.

    Example:
        >>> break_even(100e6, 1e6, 0.099)
        1000000000.0
    """
    saved = max(size - compressed, 0.0)
    if not seconds:
        return float("inf") if saved else 0.0
    return saved / seconds
