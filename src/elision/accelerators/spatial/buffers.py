"""Buffers and I/O networks: how tensors get from memory to the array, and at what cost.

A buffer of a tensor is placed inside a loop: it holds what the loops inside need, and is
filled again whenever a loop outside brings other elements (:func:`fills`). With two copies
one is filled while the other is read, so that a period takes the longer of the two.

An I/O network is the chain of kernels between memory and the array that the access to one
tensor was isolated into. Its stages send each datum once instead of once for every turn of
a loop (*remove*), feed a row of stages from its end (*scatter*) or collect from one
(*gather*), and pack several words into a transfer (*vector*). The terms are those of T2SP
(github.com/IntelLabs/t2sp).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from elision.accelerators.base import ceil_div
from elision.accelerators.spatial.derived import heads
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest, Tensor
from elision.common.checks import integer
from elision.common.names import lookup

__all__ = ["MOVES", "Buffer", "IoNetwork", "Period", "Stage", "fills", "time_order"]

#: Ways from one stage to a row of the next.
MOVES = {
    "direct": "every element of the row has a port of its own",
    "scatter": "one port at an end of the row; each keeps its part and passes the rest on",
    "gather": "results pass along the row to one port at its end",
}


def fills(turns: Iterable[tuple[bool, int]]) -> int:
    """Times that a buffer is filled.

    Loops of one turn do not count; nor do the innermost of those outside the buffer that
    do not index its tensor, since they bring nothing new.

    Args:
        turns: whether a loop indexes the tensor, and its turns, of the loops outside the
            buffer from the outermost to the innermost.

    Example:
        >>> fills([(True, 8), (False, 4), (True, 1)]), fills([(False, 4), (True, 8)])
        (8, 32)
    """
    counted = [(indexes, n) for indexes, n in turns if n > 1]
    while counted and not counted[-1][0]:
        counted.pop()
    return math.prod(n for _, n in counted)


def time_order(nest: LoopNest, map: SpaceTimeMap) -> tuple[str, ...]:
    """Loops in time, from the outermost to the innermost: those that are no side.

    Example:
        >>> time_order(LoopNest.matmul(4, 4, 4), SpaceTimeMap(("i",), {"k": 4, "j": 1}))
        ('k', 'j')
    """
    time = map.time_row(nest)
    sides = {loop for row in map.space_rows(nest) for loop, e in enumerate(row) if e}
    inside = [place for place in range(len(time)) if place not in sides]
    names = list(nest.loops)
    return tuple(names[p] for p in sorted(inside, key=lambda place: -abs(time[place])))


class Period(NamedTuple):
    """One period of a double buffer, in cycles.

    Attributes:
        reads: cycles in which its consumer reads one copy.
        writes: cycles in which its producer fills the other.

    Example:
        >>> Period(reads=32768, writes=10240).hidden
        True
    """

    reads: int
    writes: int

    @property
    def cycles(self) -> int:
        """The longer of both."""
        return max(self.reads, self.writes)

    @property
    def hidden(self) -> bool:
        """Whether filling takes no cycles of its own."""
        return self.writes <= self.reads


@dataclass(frozen=True)
class Buffer:
    """On-chip copies of a tile of a tensor.

    Attributes:
        tensor: whose elements.
        loop: the innermost loop outside the buffer; None: all loops are inside, so that
            it holds the whole tensor.
        copies: 1, or 2 to fill one while the other is read.

    Raises:
        ValueError: other than one or two copies.

    Example:
        >>> nest = LoopNest.matmul(512, 512, 512)
        >>> buffer = Buffer("A", "i", copies=1)
        >>> buffer.words(nest, ("i", "j", "k")), buffer.filled(nest, ("i", "j", "k"))
        (512, 512)
    """

    tensor: Tensor
    loop: str | None = None
    copies: int = 2

    def __post_init__(self) -> None:
        integer("Buffer", "copies", self.copies, "[1, 2]")

    def outside(self, nest: LoopNest, order: Sequence[str]) -> tuple[str, ...]:
        """Loops outside the buffer.

        Args:
            nest: whose tensor.
            order: loops in time, from the outermost to the innermost.

        Raises:
            ValueError: the loop is not in the order; lists what is.
        """
        if self.loop is None:
            return ()
        lookup("loop in time", self.loop, dict.fromkeys(order))
        nest.loop(self.loop)
        return tuple(order[: list(order).index(self.loop) + 1])

    def words(self, nest: LoopNest, order: Sequence[str]) -> int:
        """Words of all copies: distinct elements of a tile, of exact shape.

        Raises:
            ValueError: as :meth:`outside`, or an unknown tensor (lists the valid ones).
        """
        return self.copies * self._tile(nest, order)

    def _tile(self, nest: LoopNest, order: Sequence[str]) -> int:
        one = dict.fromkeys(self.outside(nest, order), 1)
        return heads(nest.resized(one), self.tensor)

    def filled(self, nest: LoopNest, order: Sequence[str]) -> int:
        """Times that a copy is filled, by :func:`fills`; errors as :meth:`words`."""
        return fills(
            (nest.indexes(self.tensor, loop), nest.loops[loop])
            for loop in self.outside(nest, order)
        )

    def traffic(self, nest: LoopNest, order: Sequence[str]) -> tuple[int, int]:
        """Words read from the memory behind it, and words written to it.

        Of the output, what is written again was read back before: all but the first
        write of each element.

        Raises:
            ValueError: as :meth:`words`.
        """
        moved = self.filled(nest, order) * self._tile(nest, order)
        if nest.tensor(self.tensor) != nest.output:
            return moved, 0
        return moved - heads(nest, self.tensor), moved

    def period(self, nest: LoopNest, order: Sequence[str], width: int = 1) -> Period:
        """Cycles in which a copy is read, and in which one is filled.

        Args:
            nest: whose tensor.
            order: loops in time, from the outermost to the innermost.
            width: words that arrive in a cycle.

        Raises:
            ValueError: as :meth:`words`.
        """
        outside = self.outside(nest, order)
        inside = math.prod(nest.loops[loop] for loop in order if loop not in outside)
        return Period(inside, ceil_div(self._tile(nest, order), width))


@dataclass(frozen=True)
class Stage:
    """One kernel of an I/O network.

    Attributes:
        name: such as ``"A_loader"``.
        removed: loops that it does not run: it sends each datum once for all their turns.
        moves: way to the next stage or the array, a key of :data:`MOVES`.
        along: the side of the array along which it scatters or gathers.
        vector: loop whose words are packed into one transfer.
        buffer: what it holds.

    Raises:
        ValueError: unknown ``moves`` (lists the valid ones), or a scatter or gather that
            does not say along which loop.

    Example:
        >>> Stage("A_loader", removed=("jj",), vector="kk").removed
        ('jj',)
    """

    name: str
    removed: tuple[str, ...] = ()
    moves: str = "direct"
    along: str | None = None
    vector: str | None = None
    buffer: Buffer | None = None

    def __post_init__(self) -> None:
        lookup("way of moving", self.moves, MOVES)
        if (self.moves != "direct") != (self.along is not None):
            raise ValueError(
                f"Stage({self.name!r}, moves={self.moves!r}, along={self.along!r}): scatter "
                "and gather go along a loop that is a side of the array, direct along none"
            )


@dataclass(frozen=True)
class IoNetwork:
    """The chain of stages between memory and the array for one tensor.

    Attributes:
        tensor: what it moves.
        stages: from memory to the array for what is read, from the array to memory for
            what is written.

    Raises:
        ValueError: no stage, or two of one name.

    Example:
        >>> nest = LoopNest({"k": 8, "jj": 4, "ii": 4},
        ...     {"A": ("k", "ii"), "B": ("k", "jj"), "C": ("ii", "jj")}, "C")
        >>> map = SpaceTimeMap(("ii", "jj"), {"k": 1, "ii": 1, "jj": 1})
        >>> chain = IoNetwork("A", (Stage("A_loader", removed=("jj",)), Stage("A_feeder")))
        >>> chain.check(nest, map)
        >>> chain.words(nest, 0), chain.words(nest, 1)
        (32, 128)
        >>> IoNetwork("A", (Stage("A_loader", removed=("ii",)),)).check(nest, map)
        Traceback (most recent call last):
        ValueError: A_loader.remove(ii): ii indexes A, it is no reuse loop; those of A: jj
    """

    tensor: Tensor
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"IoNetwork({self.tensor!r}): needs stages of different names, got "
                f"{', '.join(names) or 'none'}"
            )

    def check(self, nest: LoopNest, map: SpaceTimeMap) -> None:
        """Raise ValueError, naming the stage and the reason, unless the chain is legal.

        A removed loop must be a reuse loop of the tensor, a scatter or gather go along a
        side, a vector be of a loop that indexes the tensor, and what one stage has removed
        must not be sent again by an earlier one of an input (or a later one of an output).

        Args:
            nest: with the tensor.
            map: of the array.
        """
        reused = nest.reused_along(self.tensor)
        sides = map.sides(nest) or ()
        for stage in self.stages:
            for loop in stage.removed:
                if nest.indexes(self.tensor, loop):
                    raise ValueError(
                        f"{stage.name}.remove({loop}): {loop} indexes {self.tensor}, it is "
                        f"no reuse loop; those of {self.tensor}: {', '.join(reused) or 'none'}"
                    )
            if stage.along is not None and stage.along not in sides:
                nest.loop(stage.along)
                raise ValueError(
                    f"{stage.name}.{stage.moves}({stage.along}): {stage.along} is no side of "
                    f"the array; sides: {', '.join(sides) or 'none'}"
                )
            if stage.vector is not None and not nest.indexes(self.tensor, stage.vector):
                raise ValueError(
                    f"{stage.name}.vectorize({stage.vector}): {stage.vector} does not index "
                    f"{self.tensor}: its words would be one"
                )
            if stage.buffer is not None and stage.buffer.tensor != self.tensor:
                raise ValueError(
                    f"{stage.name}: its buffer holds {stage.buffer.tensor}, the network "
                    f"moves {self.tensor}"
                )
        written = nest.tensor(self.tensor) == nest.output
        order = self.stages if not written else self.stages[::-1]
        for before, after in pairwise(order):
            again = [loop for loop in after.removed if loop not in before.removed]
            if again:
                raise ValueError(
                    f"{before.name} sends {self.tensor} once for every turn of "
                    f"{', '.join(again)}, which {after.name} does not take: remove it from "
                    f"{before.name}, too"
                )

    def words(self, nest: LoopNest, stage: int) -> int:
        """Words that a stage sends (of the output: takes) over the whole nest.

        Raises:
            ValueError: an unknown loop; lists the valid ones.
        """
        gone = self.stages[stage].removed
        return math.prod(n for loop, n in nest.loops.items() if loop not in gone)

    def transfers(self, nest: LoopNest, stage: int) -> int:
        """Transfers of a stage: its words over those of a vector."""
        vector = self.stages[stage].vector
        width = nest.loops[vector] if vector is not None else 1
        return ceil_div(self.words(nest, stage), width)

    def ports(self, nest: LoopNest, map: SpaceTimeMap, stage: int) -> int:
        """Ports from a stage to what follows: one for a row that is fed from its end."""
        ends = self.stages[stage].along
        sides = map.sides(nest) or ()
        own = (s for s in sides if nest.indexes(self.tensor, s) and s != ends)
        return math.prod(nest.loops[side] for side in own)

    def extra_cycles(self, nest: LoopNest) -> int:
        """Cycles that scattering and gathering add unless they overlap with computing."""
        return sum(nest.loops[s.along] for s in self.stages if s.along is not None)
