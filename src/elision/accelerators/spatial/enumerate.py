"""All legal maps of a nest onto an array of some dimensions.

A nest of one loop more than the array has dimensions, as a matrix product on a plane, has
its maps enumerated matrix by matrix. A deeper nest has one loop for each side of the array
and the others in time, in every order, as the digits of a clock; a side may be skewed by a
cycle an element, or have its tensor on a bus.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from itertools import product as tuples

from elision.accelerators.spatial.derived import letters
from elision.accelerators.spatial.integers import Matrix, Vector, determinant
from elision.accelerators.spatial.legality import legal
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest
from elision.common.checks import integer

__all__ = ["Mapping", "mappings"]


@dataclass(frozen=True, eq=False)
class Mapping(SpaceTimeMap):
    """One of the legal maps of a nest: a map that knows its dataflow.

    Attributes:
        letters: :func:`~elision.accelerators.spatial.derived.letters` of it.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 4)
        >>> found = list(mappings(nest, entries=(0, 1)))
        >>> len(found), sorted({each.letters for each in found})[:3]
        (87, ['MMS', 'MMT', 'MSM'])
    """

    letters: str = ""

    @property
    def map(self) -> SpaceTimeMap:
        """The map alone."""
        return SpaceTimeMap(self.space, self.time)


def mappings(
    nest: LoopNest,
    dimensions: int = 2,
    entries: Sequence[int] = (-1, 0, 1),
    up_to_symmetry: bool = True,
    hops: str = "any",
) -> Iterator[Mapping]:
    """Every legal map of a nest whose entries are among those given.

    Args:
        nest: any; its extents decide which maps are legal.
        dimensions: of the array.
        entries: allowed in the rows of space and time; time is never negative, since sums
            are handed on in the order of their loop.
        up_to_symmetry: one map of each set that the array's own symmetries (mirrored and
            turned) make of it.
        hops: links that the array has (:func:`~elision.accelerators.spatial.legal`).

    Raises:
        ValueError: an array of as many dimensions as the nest has loops or more, or
            ``hops`` unknown.
    """
    integer("mappings", "dimensions", dimensions, f"[1, {len(nest.loops) - 1}]")
    if len(nest.loops) == dimensions + 1:
        found = _matrices(len(nest.loops), entries, up_to_symmetry)
    else:
        found = _digits(nest, dimensions, entries, up_to_symmetry)
    for space, time in found:
        map = SpaceTimeMap(space, time)
        if legal(nest, map, hops=hops):
            yield Mapping(space, time, letters=letters(nest, map))


def _matrices(
    loops: int, entries: Sequence[int], up_to_symmetry: bool
) -> Iterator[tuple[Matrix, Vector]]:
    """Every non-singular matrix; time without negative entries."""
    rows = [row for row in tuples(entries, repeat=loops) if any(row)]
    times = [row for row in rows if min(row) >= 0]
    if up_to_symmetry:
        # Mirrors change the sign of a row, turns exchange rows: of each set the one whose
        # rows begin with a positive entry (if both signs are allowed) and descend.
        own = set(rows)
        rows = [
            row
            for row in rows
            if row >= (turned := tuple(-entry for entry in row)) or turned not in own
        ]
        rows.sort(reverse=True)
        spaces = combinations(rows, loops - 1)
    else:
        spaces = permutations(rows, loops - 1)
    for space in spaces:
        for time in times:
            if determinant((*space, time)):
                yield space, time


def _digits(
    nest: LoopNest, dimensions: int, entries: Sequence[int], up_to_symmetry: bool
) -> Iterator[tuple[Matrix, Vector]]:
    """One loop for each side, the others in time in every order, the sides skewed or not."""
    names = list(nest.loops)
    skews = [entry for entry in (0, 1) if entry in entries]
    choose = combinations if up_to_symmetry else permutations
    for sides in choose(names, dimensions):
        inside = [name for name in names if name not in sides]
        space = tuple(nest.unit(side) for side in sides)
        for order in permutations(inside):
            weights = {
                name: math.prod(nest.loops[inner] for inner in order[place + 1 :])
                for place, name in enumerate(order)
            }
            for skew in tuples(skews, repeat=dimensions):
                time = weights | dict(zip(sides, skew, strict=True))
                yield space, tuple(time[name] for name in names)
