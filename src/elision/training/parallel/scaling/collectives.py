"""Collectives: seconds and bytes of an all-reduce or an all-gather, by latency and bandwidth.

The costs are the standard ones of the latency-bandwidth model, in which every rank sends
and receives one message at a time. A test replays the messages of each algorithm.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from elision.common.checks import integer
from elision.training.parallel.scaling.link import Link

__all__ = ["COLLECTIVES", "AllGather", "Collective", "Hierarchical", "Ring", "Tree"]


@dataclass(frozen=True)
class Collective(ABC):
    """An algorithm that leaves every rank with the sum of all.

    Attributes:
        link: between ranks, or between nodes where ranks share some.

    Example:
        >>> sorted(COLLECTIVES)
        ['hierarchical', 'ring', 'tree']
    """

    name: ClassVar[str]
    link: Link

    @abstractmethod
    def seconds(self, size: float, ranks: int) -> float:
        """Seconds for ``size`` bytes on each of ``ranks`` ranks."""

    @abstractmethod
    def sent_bytes(self, size: float, ranks: int) -> float:
        """Bytes that the busiest rank sends."""


@dataclass(frozen=True)
class Ring(Collective):
    """Ring: ``2 (p - 1) latency + 2 (p - 1) / p * bytes / bandwidth``.

    Example:
        >>> Ring(Link(bandwidth=1.0)).seconds(8, 4)
        12.0
    """

    name = "ring"

    def seconds(self, size: float, ranks: int) -> float:
        """Seconds of a reduce-scatter and an all-gather around the ring."""
        return 2 * (ranks - 1) * self.link.seconds(size / ranks)

    def sent_bytes(self, size: float, ranks: int) -> float:
        """Bytes of both rounds."""
        return 2 * (ranks - 1) / ranks * size


@dataclass(frozen=True)
class Tree(Collective):
    """Binary tree: ``2 ceil(log2 p) (latency + bytes / bandwidth)``, not pipelined.

    Example:
        >>> Tree(Link(bandwidth=1.0)).seconds(8, 4)
        32.0
    """

    name = "tree"

    def seconds(self, size: float, ranks: int) -> float:
        """Seconds up the tree and down again."""
        return 2 * math.ceil(math.log2(ranks)) * self.link.seconds(size)

    def sent_bytes(self, size: float, ranks: int) -> float:
        """Bytes of the root, which sends the sum in every round down."""
        return math.ceil(math.log2(ranks)) * size


@dataclass(frozen=True)
class Hierarchical(Collective):
    """Ring inside a node, ring across nodes, ring inside again.

    A reduce-scatter inside the node leaves each of its ranks a part; the ranks of all
    nodes that hold the same part reduce it, all parts sharing the node's link; an
    all-gather inside ends it.

    Attributes:
        link: between nodes, of a node.
        inner: between the ranks of a node.
        per_node: ranks of a node; fewer ranks than that are on one node.

    Raises:
        ValueError: no rank on a node, or a number of ranks that does not fill nodes.

    Example:
        >>> two_levels = Hierarchical(Link(1.0), inner=Link(4.0), per_node=2)
        >>> two_levels.seconds(8, 4), Ring(Link(1.0)).seconds(8, 4)
        (10.0, 12.0)
    """

    name = "hierarchical"
    inner: Link = field(default_factory=Link)
    per_node: int = 1

    def __post_init__(self) -> None:
        integer("Hierarchical", "per_node", self.per_node)

    def seconds(self, size: float, ranks: int) -> float:
        """Seconds of the three rounds."""
        own, nodes = self._split(ranks)
        inside = 2 * (own - 1) * self.inner.seconds(size / own)
        return inside + Ring(self.link).seconds(size, nodes)

    def sent_bytes(self, size: float, ranks: int) -> float:
        """Bytes of a rank inside the node and out of it."""
        own, nodes = self._split(ranks)
        across = Ring(self.link).sent_bytes(size / own, nodes)
        return 2 * (own - 1) / own * size + across

    def _split(self, ranks: int) -> tuple[int, int]:
        """Ranks of a node, and nodes."""
        own = min(self.per_node, ranks)
        if ranks % own:
            raise ValueError(
                f"Hierarchical(per_node={self.per_node}): {ranks} ranks do not fill nodes; "
                f"give a multiple of {own}"
            )
        return own, ranks // own


@dataclass(frozen=True)
class AllGather(Collective):
    """Ring all-gather, for messages that cannot be added on the way.

    ``(p - 1) (latency + bytes / bandwidth)``: every rank receives every other's message.

    Example:
        >>> AllGather(Link(bandwidth=1.0)).seconds(8, 4)
        24.0
    """

    name = "all-gather"

    def seconds(self, size: float, ranks: int) -> float:
        """Seconds until every rank has every message."""
        return (ranks - 1) * self.link.seconds(size)

    def sent_bytes(self, size: float, ranks: int) -> float:
        """Bytes of all messages but the last, each passed on."""
        return (ranks - 1) * size


#: All-reduce algorithms by name.
COLLECTIVES: dict[str, type[Collective]] = {
    each.name: each for each in (Ring, Tree, Hierarchical)
}
