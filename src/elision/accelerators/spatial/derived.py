"""Closed forms of a map: elements, cycles, links, accesses and storage of its array.

All follow from two kinds of vectors, the reuse vectors d of each tensor and the projection
vector u of the map (``S u = 0``), by one count: a box of extents N has ::

    Π N_l − Π max(0, N_l − |v_l|)

points z without a predecessor z − v. With v = u these are the processing elements, with
v = d the places where a datum enters the array or a sum leaves it.
:mod:`elision.accelerators.spatial.simulate` counts the same by running the array.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from elision.accelerators.spatial.integers import Vector, dot, minors, primitive
from elision.accelerators.spatial.legality import Reuse, reuses
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest, Tensor

__all__ = [
    "Link",
    "elements",
    "entry",
    "heads",
    "interval",
    "letters",
    "line_heads",
    "links",
    "makespan",
    "ports",
    "projection",
    "storage",
    "touched",
    "utilisation",
]

#: Iterations up to which what has no closed form is counted one by one.
_COUNTED = 1 << 22


class Link(NamedTuple):
    """How a tensor travels along one of its reuse vectors.

    Attributes:
        kind: ``"stationary"``: it stays in an element for ``delay`` cycles;
            ``"systolic"``: it moves by ``hop`` through ``delay`` registers;
            ``"multicast"``: all see it in one cycle; ``"tree"``: an output's sums are
            added in one cycle.
        vector, hop, delay: as of a :class:`~elision.accelerators.spatial.legality.Reuse`.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 4)
        >>> links(nest, SpaceTimeMap(("i", "j"), "k"), "A")
        (Link(kind='multicast', vector=(0, 1, 0), hop=(0, 1), delay=0),)
    """

    kind: str
    vector: Vector
    hop: Vector
    delay: int


def links(nest: LoopNest, map: SpaceTimeMap, tensor: Tensor) -> tuple[Link, ...]:
    """How a tensor travels along each of the reuse vectors that fit the box.

    Raises:
        ValueError: an unknown tensor or loop; lists the valid ones.
    """
    written = nest.tensor(tensor) == nest.output
    return tuple(
        Link(_kind(reuse, written), *reuse) for reuse in reuses(nest, map, tensor)
    )


def _kind(reuse: Reuse, written: bool) -> str:
    if not any(reuse.hop):
        return "stationary"
    if reuse.delay:
        return "systolic"
    return "tree" if written else "multicast"


#: Letter of a tensor's dataflow in space; the strongest kind counts.
_LETTERS = {"systolic": "S", "multicast": "M", "tree": "M"}


def letters(nest: LoopNest, map: SpaceTimeMap) -> str:
    """A letter for each tensor that is read and then the one that is written.

    ``T``: stays (its reuse is in time); ``S``: systolic; ``M``: multicast, or an adder
    tree. SST is output-stationary, STS has the second operand stay, TSS the first.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 4)
        >>> [letters(nest, SpaceTimeMap.keeping(nest, tensor)) for tensor in "CBA"]
        ['SST', 'STS', 'TSS']
    """
    # Extents of 2 or more, so that a loop's kind does not depend on its length.
    full = nest.resized({loop: max(2, n) for loop, n in nest.loops.items()})
    row, word = map.matrix(nest), ""
    *space, time = row
    for tensor in nest.tensors:
        kinds = set()
        for d in full.applicable(tensor):
            if any(dot(line, d) for line in space):
                kinds.add("S" if dot(time, d) else "M")
        word += "S" if "S" in kinds else "M" if kinds else "T"
    return word


def line_heads(extents: Vector, vector: Vector) -> int:
    """Points of a box without a predecessor along a vector: heads of its lines.

    Example:
        >>> line_heads((3, 5, 4), (1, 1, 1))
        36
    """
    inner = (max(0, n - abs(v)) for n, v in zip(extents, vector, strict=True))
    return math.prod(extents) - math.prod(inner)


def projection(nest: LoopNest, map: SpaceTimeMap) -> Vector:
    """The primitive vector u with ``S u = 0``: iterations of one element lie along it.

    Raises:
        ValueError: the nest has not one loop more than the array has dimensions, so that
            the iterations of an element are no line.
    """
    rows = map.space_rows(nest)
    if len(rows) + 1 != len(nest.loops):
        raise ValueError(
            f"a {len(rows)}-D array of a nest of {len(nest.loops)} loops has no single "
            "projection vector"
        )
    return primitive(minors(rows))


def interval(nest: LoopNest, map: SpaceTimeMap) -> int:
    """Cycles from one iteration of an element to its next, ``|λ · u|``.

    Raises:
        ValueError: as :func:`projection`.
    """
    return abs(dot(map.time_row(nest), projection(nest, map)))


def elements(nest: LoopNest, map: SpaceTimeMap) -> int:
    """Processing elements: distinct values of ``S z`` in the box.

    Raises:
        ValueError: rows of space that share loops, in a nest with more than one loop
            beyond the array's dimensions and too many iterations to count.
    """
    return _elements(map.space_rows(nest), nest.extents)


@lru_cache(maxsize=4096)
def _elements(rows: tuple[Vector, ...], extents: Vector) -> int:
    used = [[loop for loop, entry in enumerate(row) if entry] for row in rows]
    if all(len(loops) == 1 for loops in used) and len({u[0] for u in used}) == len(
        used
    ):
        return math.prod(extents[loops[0]] for loops in used)
    if len(rows) + 1 == len(extents) and any(u := minors(rows)):
        return line_heads(extents, primitive(u))
    return len(np.unique(_images(rows, extents), axis=1).T)


def _images(rows: tuple[Vector, ...], extents: Vector) -> np.ndarray:
    """(rows, iterations) values of some rows over the box."""
    if math.prod(extents) > _COUNTED:
        raise ValueError(
            f"{math.prod(extents):,} iterations are too many to count the elements of "
            f"the rows {rows} one by one (up to {_COUNTED:,})"
        )
    box = np.indices(extents).reshape(len(extents), -1)
    return np.array(rows) @ box


def makespan(nest: LoopNest, map: SpaceTimeMap) -> int:
    """Cycles from the first iteration to the last: ``1 + Σ |λ_l| (N_l − 1)``."""
    weights = zip(map.time_row(nest), nest.extents, strict=True)
    return 1 + sum(abs(weight) * (extent - 1) for weight, extent in weights)


def utilisation(nest: LoopNest, map: SpaceTimeMap) -> float:
    """Share of elements x cycles in which an iteration is done."""
    return nest.iterations / (elements(nest, map) * makespan(nest, map))


def heads(nest: LoopNest, tensor: Tensor) -> int:
    """Iterations that take a datum from memory, or hand a sum to it, padding included.

    They are the iterations without a neighbour along any reuse vector. They do not depend
    on the map: each distinct element moves once.

    Raises:
        ValueError: reuse vectors that share a loop, as those of no layer do.
    """
    return _heads(nest.extents, nest.applicable(tensor))


def _heads(extents: Vector, vectors: tuple[Vector, ...]) -> int:
    _check_apart(vectors)
    count, left = 1, dict(enumerate(extents))
    for d in vectors:
        used = [loop for loop, entry in enumerate(d) if entry]
        own = tuple(left.pop(loop) for loop in used)
        count *= line_heads(own, tuple(d[loop] for loop in used))
    return count * math.prod(left.values())


def _check_apart(vectors: tuple[Vector, ...]) -> None:
    used = [loop for d in vectors for loop, entry in enumerate(d) if entry]
    if len(used) != len(set(used)):
        raise ValueError(f"the reuse vectors {vectors} share a loop: no closed form")


def touched(nest: LoopNest, tensor: Tensor) -> int:
    """Distinct elements of a tensor that the iterations meet, padding left out.

    It is the number of reads of an input from memory, or of writes of an output, by the
    array of any map: :func:`heads` less what lies in the padding.

    Raises:
        ValueError: axes of a padded tensor that share a loop, as those of no layer do.
    """
    access = nest.access(tensor)
    if access.shape is None:
        return heads(nest, tensor)
    used = [loop for row in access.rows for loop, entry in enumerate(row) if entry]
    if len(used) != len(set(used)):
        raise ValueError(f"axes of {tensor} share a loop: no closed form")
    return math.prod(
        _places(
            tuple(entry for entry in row if entry),
            tuple(n for n, entry in zip(nest.extents, row, strict=True) if entry),
            more,
            size,
        )
        for row, more, size in zip(
            access.rows, access.offset, access.shape, strict=True
        )
    )


@lru_cache(maxsize=65536)
def _places(row: Vector, extents: Vector, offset: int, size: int) -> int:
    """Distinct values of ``row · z + offset`` in ``[0, size)``."""
    if len(row) == 1 and row[0] > 0:
        first = max(0, -(offset // row[0]))
        last = min(extents[0] - 1, (size - 1 - offset) // row[0])
        return max(0, last - first + 1)
    met = np.array([offset])
    for entry, extent in zip(row, extents, strict=True):
        met = (met[:, None] + entry * np.arange(extent)).ravel()
    met = np.unique(met)
    return int(((met >= 0) & (met < size)).sum())


def ports(nest: LoopNest, map: SpaceTimeMap, tensor: Tensor) -> int:
    """Elements at which a tensor enters or leaves the array.

    Raises:
        ValueError: rows of space of several loops and too many iterations to count.
    """
    rows = map.space_rows(nest)
    vectors = tuple(reuse.vector for reuse in reuses(nest, map, tensor))
    sides = map.sides(nest)
    if sides is None:
        return _counted_ports(
            rows, nest.extents, vectors, nest.tensor(tensor) == nest.output
        )
    _check_apart(vectors)
    across = {nest.loop(side) for side in sides}
    count, left = 1, set(across)
    for d in vectors:
        used = {loop for loop, entry in enumerate(d) if entry}
        if used <= across:
            own = sorted(used)
            sizes = tuple(nest.extents[loop] for loop in own)
            count *= line_heads(sizes, tuple(d[loop] for loop in own))
            left -= used
        elif len(used) > 1:
            # One end of the lines passes every place along the loop in space, unless the
            # step along it is that long.
            continue
    return count * math.prod(nest.extents[loop] for loop in left)


def _counted_ports(
    rows: tuple[Vector, ...],
    extents: Vector,
    vectors: tuple[Vector, ...],
    written: bool,
) -> int:
    """Ports of any map: the elements of the iterations without a neighbour."""
    images = _images(rows, extents)
    box = np.indices(extents).reshape(len(extents), -1)
    ends = np.ones(box.shape[1], bool)
    limit = np.array(extents)[:, None]
    for d in vectors:
        other = box + (np.array(d)[:, None] if written else -np.array(d)[:, None])
        ends &= ~((other >= 0) & (other < limit)).all(0)
    return len(np.unique(images[:, ends], axis=1).T)


def storage(nest: LoopNest, map: SpaceTimeMap, tensor: Tensor) -> int:
    """Words that an element keeps of a tensor, beside what passes through it.

    An element keeps a datum for as long as its next use is away; what it needs meanwhile
    for others are the loops of time inside that index the tensor. Of several stationary
    reuse vectors the longest counts; a tensor that never stays needs none.
    """
    time = map.time_row(nest)
    sides = {loop for row in map.space_rows(nest) for loop, e in enumerate(row) if e}
    needed = 0
    for link in links(nest, map, tensor):
        if link.kind != "stationary":
            continue
        inner = (
            n
            for loop, n in enumerate(nest.extents)
            if loop not in sides
            and abs(time[loop]) < link.delay
            and any(row[loop] for row in nest.access(tensor).rows)
        )
        needed = max(needed, math.prod(inner))
    return needed


def entry(nest: LoopNest, map: SpaceTimeMap, z: Vector) -> tuple[Vector, int]:
    """Element and cycle of an iteration: of a head, where and when its datum enters.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 4)
        >>> entry(nest, SpaceTimeMap.keeping(nest, "C"), (2, 0, 0))  # the input skew
        ((2, 0), 2)
    """
    *space, time = map.matrix(nest)
    return tuple(dot(row, z) for row in space), dot(time, z)
