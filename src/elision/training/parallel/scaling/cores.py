"""Cores: those of a node that communicate instead of computing."""

import math
from dataclasses import dataclass

from elision.common.checks import integer, number

__all__ = ["Cores"]


@dataclass(frozen=True)
class Cores:
    """A node's cores, some pinned for communication, as Intel's MLSL pins them.

    With none pinned, communication waits for the end of the backward pass. With some,
    it overlaps, computing takes ``total / (total - communicating)`` times as long, and
    the pinned cores bound the bandwidth.

    Attributes:
        total: cores of the node.
        communicating: of them pinned for communication.
        bandwidth: bytes per second that one of them moves.

    Raises:
        ValueError: none is left to compute, or a number is out of range.

    Example:
        >>> Cores(28, communicating=4).slowdown
        1.1666666666666667
    """

    total: int
    communicating: int = 0
    bandwidth: float = math.inf

    def __post_init__(self) -> None:
        integer("Cores", "total", self.total)
        integer("Cores", "communicating", self.communicating, f"[0, {self.total})")
        number("Cores", "bandwidth", self.bandwidth, "(0, inf]")

    @property
    def slowdown(self) -> float:
        """Factor of the time to compute, which is taken to be in proportion to cores."""
        return self.total / (self.total - self.communicating)

    @property
    def overlaps(self) -> bool:
        """Whether buckets travel during the backward pass."""
        return self.communicating > 0

    def bound(self, bandwidth: float) -> float:
        """The bandwidth that is left of a link's; all cores move bytes with none pinned."""
        return min(bandwidth, (self.communicating or self.total) * self.bandwidth)
