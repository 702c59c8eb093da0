"""Compression: what a gradient's message costs, as the scaling model reads it."""

from dataclasses import dataclass

from elision.common.checks import number

__all__ = ["Compression", "break_even"]


@dataclass(frozen=True)
class Compression:
    """Bits and seconds of a compressed message.

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
