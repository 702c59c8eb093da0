"""Folding: a nest larger than the array, cut into tiles that the array does in turn.

The sides of the array are two loops of the nest, cut into pieces of the array's rows and
columns; the other loops are in time. A *fold* is what the array does with one set of kept
values: the loops inside the first one along which they are reused. Each fold streams T
iterations through every element, and

    makespan of a fold      T + skew_r (R − 1) + skew_c (C − 1)
    loading or draining     R · (kept words an element)       0 if nothing is kept

Ragged tiles cost as full ones: what passes through the array passes through all of it.
Folds follow one another in one of these ways (:data:`FOLDS`):

    drained      F · (makespan + loading)
    overlapped   F · makespan, and the first loading of a kept operand
    pipelined    loading + (F − 1) · max(T, loading) + makespan

The first empties the array between folds; in the second a shadow register behind each kept
value hides loading and draining, but the skew is paid in every fold; in the third the next
fold follows at once, element by element.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from elision.accelerators.base import ceil_div
from elision.accelerators.spatial.buffers import fills, time_order
from elision.accelerators.spatial.classes import pair_class
from elision.accelerators.spatial.derived import letters, line_heads, makespan, ports
from elision.accelerators.spatial.integers import Vector
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest, Tensor
from elision.accelerators.timing import Phase, Timing

__all__ = ["FOLDS", "Folding", "Moved"]

#: Ways in which folds follow one another.
FOLDS = {
    "pipelined": "the next fold follows element by element, its kept values in shadows",
    "overlapped": "loading and draining under another fold, the skew paid in each",
    "drained": "the array loads, computes and empties, fold by fold",
    "none": "one fold: an array smaller than the sides of the nest is refused",
}


class Moved(NamedTuple):
    """Words of one tensor between memory and a buffer.

    Example:
        >>> Moved(reads=100, writes=0).words
        100
    """

    reads: int
    writes: int

    @property
    def words(self) -> int:
        """Both together."""
        return self.reads + self.writes


@dataclass(frozen=True)
class Folding:
    """A nest on an array of some rows and columns by a map.

    Attributes:
        nest, map: the nest, and the map whose sides are cut.
        rows, columns: elements of the array.
        folds: a key of :data:`FOLDS`.
        keeping: the tensor that stays; None: the one that the map keeps.

    Raises:
        ValueError: a map of more than two dimensions, or an array that is too small for a
            map that cannot be cut (its rows of space mix loops) or must not be
            (``folds="none"``).

    Example:
        >>> nest = LoopNest.matmul(64, 64, 256)
        >>> folding = Folding(nest, SpaceTimeMap.keeping(nest, "B"), 32, 32, "drained")
        >>> folding.count, folding.streamed, folding.cycles  # 2R + C + T - 2 a fold
        (16, 64, 2528)
    """

    nest: LoopNest
    map: SpaceTimeMap
    rows: int
    columns: int
    folds: str = "pipelined"
    keeping: Tensor | None = None

    def __post_init__(self) -> None:
        sizes = self.sizes
        if len(sizes) > 2:
            raise ValueError(
                f"a map of {len(sizes)} dimensions does not fit an array of rows and columns"
            )
        if self.sides is not None and self.folds != "none":
            return
        array = (self.rows, self.columns)
        if any(size > have for size, have in zip(sizes, array, strict=False)):
            need = "x".join(map(str, sizes))
            what = (
                f"the unrolled loops {', '.join(self.sides)}"
                if self.sides
                else "a map whose rows of space mix loops, which are not cut into tiles,"
            )
            raise ValueError(
                f"an array of {self.rows}x{self.columns} elements is smaller than {what} "
                f"of a nest with {self._described}: {need} elements are needed"
            )

    @property
    def _described(self) -> str:
        return ", ".join(f"{loop}={extent}" for loop, extent in self.nest.loops.items())

    @cached_property
    def sides(self) -> tuple[str, ...] | None:
        """Loops that are the array's sides; None for a map that mixes loops."""
        return self.map.sides(self.nest)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Elements along each side that the whole nest would need."""
        return tuple(
            1
            + sum(abs(e) * (n - 1) for e, n in zip(row, self.nest.extents, strict=True))
            for row in self.map.space_rows(self.nest)
        )

    @cached_property
    def letters(self) -> dict[Tensor, str]:
        """Letter of each tensor, see :func:`~elision.accelerators.spatial.derived.letters`."""
        word = letters(self.nest, self.map)
        return dict(zip(self.nest.tensors, word, strict=True))

    @cached_property
    def kept(self) -> Tensor | None:
        """The tensor whose values stay in the elements during a fold, if there is one.

        Where a tensor is shared by the whole array, or groups are side by side, several
        may stay: the one with which the array is fastest.
        """
        if self.keeping is not None:
            return self.keeping
        stay = [tensor for tensor, letter in self.letters.items() if letter == "T"]
        if self.sides is None or len(self.sides) != 2:
            return stay[0] if len(stay) == 1 else None
        tensor, _, word = pair_class(self.nest, self.sides).partition(" ")
        if word == "stays":
            return tensor
        if word not in ("shared", "side by side") or not stay:
            return None
        return min(stay, key=lambda tensor: replace(self, keeping=tensor).cycles)

    @cached_property
    def outer(self) -> tuple[str, ...]:
        """Loops outside a fold, from the outermost to the innermost, without the sides.

        Those that index the kept tensor and have none of its reuse loops outside; where
        nothing is kept, those that index all tensors.
        """
        if self.sides is None:
            return ()
        of = self.nest.accesses if self.kept is None else (self.kept,)
        found = []
        for loop in time_order(self.nest, self.map):
            if self.nest.loops[loop] > 1:
                if not all(self.nest.indexes(tensor, loop) for tensor in of):
                    break
                found.append(loop)
        return tuple(found)

    @cached_property
    def inner(self) -> tuple[str, ...]:
        """Loops inside a fold, without the sides."""
        if self.sides is None:
            return ()
        order = time_order(self.nest, self.map)
        return tuple(loop for loop in order if loop not in self.outer)

    @cached_property
    def tile(self) -> dict[str, int]:
        """Extents of a full fold by loop."""
        if self.sides is None:
            return dict(self.nest.loops)
        full = dict(self.nest.loops) | dict.fromkeys(self.outer, 1)
        for side, have in zip(self.sides, (self.rows, self.columns), strict=False):
            full[side] = min(full[side], have)
        return full

    @cached_property
    def turns(self) -> dict[str, int]:
        """Tiles along each loop."""
        return {n: ceil_div(size, self.tile[n]) for n, size in self.nest.loops.items()}

    @cached_property
    def count(self) -> int:
        """Folds."""
        return math.prod(self.turns.values())

    @cached_property
    def streamed(self) -> int:
        """Iterations of an element in a fold, T."""
        if self.sides is None:
            return makespan(self.nest, self.map)
        return math.prod(self.nest.loops[loop] for loop in self.inner)

    @cached_property
    def stored(self) -> int:
        """Words of the kept tensor in an element."""
        if self.kept is None:
            return 0
        own = (loop for loop in self.inner if self.nest.indexes(self.kept, loop))
        return math.prod(self.nest.loops[loop] for loop in own)

    @cached_property
    def pace(self) -> int:
        """Cycles of an element in a fold: T, or what its data need to arrive.

        What enters or leaves at an edge comes in time. What enters elsewhere, such as an
        image where the sides are its rows and columns, is moved through the edge as what
        is kept is: R cycles for every plane of it.
        """
        if self.sides is None or len(self.sides) != 2:
            return self.streamed
        one = self.nest.resized(self.tile)
        rows, columns = (self.tile[side] for side in self.sides)
        longest = self.streamed
        for tensor in self.nest.accesses:
            edge = ports(one, self.map, tensor) < rows + columns
            if tensor != self.kept and not edge:
                words = self.footprint(tensor, self.tile)
                planes = ceil_div(words, rows * columns)
                longest = max(longest, self.rows * planes)
        return longest

    @cached_property
    def makespan(self) -> int:
        """Cycles from the first iteration of a fold to its last, in a full array."""
        if self.sides is None:
            return self.streamed
        time = self.map.time_row(self.nest)
        have = (self.rows, self.columns)
        return self.pace + sum(
            abs(time[self.nest.loop(side)]) * (size - 1)
            for side, size in zip(self.sides, have, strict=False)
        )

    @property
    def moves(self) -> int:
        """Cycles to load or drain what is kept, row by row."""
        return self.rows * self.stored

    @property
    def period(self) -> int:
        """Cycles from one fold to the next."""
        return {
            "drained": self.makespan + self.moves,
            "overlapped": self.makespan,
        }.get(self.folds, max(self.pace, self.moves))

    @property
    def start(self) -> int:
        """Cycle in which the first fold begins to compute."""
        return self.moves if self._loads else 0

    @property
    def _loads(self) -> bool:
        """Whether something is kept that is read, not a sum."""
        return self.kept is not None and self.kept != self.nest.output

    @property
    def cycles(self) -> int:
        """Cycles of all folds."""
        if self.folds in ("drained", "overlapped"):
            first = self.start if self.folds == "overlapped" else 0
            return first + self.count * self.period
        return self.moves + (self.count - 1) * self.period + self.makespan

    def words(self, tensor: Tensor) -> int:
        """Elements of a tensor that enter or leave the array over all folds.

        In each fold each distinct element once, padding left out: counted exactly, tile
        by tile, also where tiles are ragged or overlap in an image.

        Raises:
            ValueError: an unknown tensor; lists the valid ones.
        """
        access, shape = self.nest.access(tensor), self.nest.tensor_shape(tensor)
        left, count = dict(self.nest.loops), 1
        names = list(self.nest.loops)
        for row, more, size in zip(access.rows, access.offset, shape, strict=True):
            used = [loop for loop, entry in enumerate(row) if entry]
            count *= _axis_words(
                tuple(row[loop] for loop in used),
                tuple(left.pop(names[loop]) for loop in used),
                tuple(self.tile[names[loop]] for loop in used),
                more,
                size,
            )
        return count * math.prod(self.turns[loop] for loop in left)

    def footprint(self, tensor: Tensor, extents: Mapping[str, int]) -> int:
        """Distinct elements of a tensor that a box of some extents meets, with padding."""
        count = 1
        for row in self.nest.access(tensor).rows:
            used = [(e, n) for e, n in zip(row, extents.values(), strict=True) if e]
            if len(used) == 2:
                (a, n), (b, m) = used
                common = math.gcd(a, b)
                count *= line_heads((n, m), (b // common, a // common))
            else:
                count *= math.prod(n for _, n in used)
        return count

    def moved(
        self, order: tuple[str, ...], free: Mapping[Tensor, float]
    ) -> dict[str, Moved]:
        """Words between memory and a buffer of each tensor, fold loops in an order.

        The buffer of a tensor is placed as far out as it fits, and filled by
        :func:`~elision.accelerators.spatial.buffers.fills`. What does not fit even for one
        fold passes anew in every fold.

        Args:
            order: the loops of more than one tile, from the outermost to the innermost.
            free: words that each tensor's buffer holds.
        """
        found = {}
        for tensor in self.nest.accesses:
            turns = [
                (self.nest.indexes(tensor, loop), self.turns[loop]) for loop in order
            ]
            extents = dict(self.nest.loops)
            whole = math.prod(self.nest.tensor_shape(tensor))
            for depth in range(len(order) + 1):
                tile = min(self.footprint(tensor, extents), whole)
                if tile <= free[tensor]:
                    words = fills(turns[:depth]) * tile
                    break
                if depth < len(order):
                    extents[order[depth]] = self.tile[order[depth]]
            else:
                words = self.words(tensor)
            back = max(0, words - whole)
            written = tensor == self.nest.output
            found[tensor] = Moved(back, words) if written else Moved(words, 0)
        return found

    def orders(self) -> list[tuple[str, ...]]:
        """Orders of the fold loops, each with the reuse of one tensor innermost."""
        loops = [loop for loop in self.turns if self.turns[loop] > 1]
        found = {}
        for tensor in self.nest.accesses:
            split = sorted(loops, key=lambda loop: not self.nest.indexes(tensor, loop))
            found[tuple(split)] = None
        return list(found)

    def timing(self, first: str, second: str) -> Timing:
        """Folds with the intervals in which the ports are busy.

        Of pipelined folds, those of the first lane of each port; the others follow.

        Args:
            first: name of what streams, for the timeline.
            second: name of what is kept.
        """
        lead = self.cycles - self.count * self.period
        pipelined = self.folds not in ("drained", "overlapped")
        begin = 0 if self.folds == "overlapped" else self.start - lead
        end = begin + (self.pace if pipelined else self.makespan)
        phases = [
            Phase("west port", f"stream {first}", begin, begin + self.pace),
            Phase("PEs", "multiply", begin, end),
        ]
        if self.moves and self._loads:
            phases.append(
                Phase("north port", f"load {second}", begin - self.moves, begin)
            )
        elif self.moves:
            phases.append(Phase("south port", f"drain {second}", end, end + self.moves))
        return Timing(self.count, self.period, tuple(phases), lead=lead)


@lru_cache(maxsize=65536)
def _axis_words(
    entries: Vector, extents: Vector, tiles: Vector, offset: int, size: int
) -> int:
    """Distinct indices in ``[0, size)`` along one axis, summed over all tiles."""
    if not entries:
        return int(0 <= offset < size)
    spread = np.array([offset])
    for entry, extent in zip(entries, extents, strict=True):
        spread = spread[..., None] + entry * np.arange(extent)
    spread = spread[0]
    inside = (spread >= 0) & (spread < size)
    # Of two loops, one of which is cut to single turns, no tile meets an index twice.
    if len(entries) == 1 or (len(entries) == 2 and min(tiles) == 1):
        return int(inside.sum())
    total = 0
    starts = (range(0, n, tile) for n, tile in zip(extents, tiles, strict=True))
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(
        -1, len(tiles)
    ):
        part = tuple(slice(c, c + tile) for c, tile in zip(corner, tiles, strict=True))
        total += len(np.unique(spread[part][inside[part]]))
    return total
