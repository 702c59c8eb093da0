"""Legality of a space-time map: seven rules, each named when it refuses, with a witness.

========  ==============================================================================
L1        no two iterations share a processing element and a cycle
L2        causal: a sum is handed on after the adder's latency, or in the same cycle by an
          adder tree; never backwards in time
L3        no reuse vector is mapped to no distance and no time
L4        local: a reuse vector leads along a link of the array
L5        fan rule: an input is taken from one predecessor, a sum handed to one successor
L6        every element of the output is initialised, also one whose sum is empty
L7        what arrives is the element that the iteration needs: F d = 0
========  ==============================================================================

The rules are those of the array itself: they hold for the box of the nest, so that a map
may be legal for one shape and not for another.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from elision.accelerators.spatial.integers import Matrix, Vector, determinant, dot
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest, Tensor
from elision.common.checks import integer
from elision.common.names import lookup

__all__ = [
    "HOPS",
    "RULES",
    "Reuse",
    "Verdict",
    "collision",
    "legal",
    "reuses",
    "untouched",
]

#: Rules by name.
RULES = {
    "L1": "injective",
    "L2": "causal",
    "L3": "moves",
    "L4": "local",
    "L5": "fan rule",
    "L6": "initialised",
    "L7": "tags agree",
}

#: Links of the array: the hops that one of them may make.
HOPS = {
    "mesh": "to one of the four neighbours (of a line: two)",
    "diagonal": "to one of the eight neighbours",
    "any": "anywhere",
}


@dataclass(frozen=True)
class Verdict:
    """Whether a map is legal for a nest; true in a condition if it is.

    Attributes:
        ok: whether all rules hold.
        rule: the first rule that is broken, such as ``"L1"``; None if all hold.
        witness: what shows it: two iterations (L1, L3), a reuse vector (L2, L4, L7), an
            iteration (L5), an element of the output (L6).
        reason: the same in words.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 4)
        >>> verdict = legal(nest, SpaceTimeMap(("i", "i"), (1, 1, 1)))
        >>> verdict.rule, verdict.witness, bool(verdict)
        ('L1', ((0, 0, 1), (0, 1, 0)), False)
    """

    ok: bool
    rule: str | None = None
    witness: Any = None
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok

    def check(self) -> None:
        """Raise ValueError, with the rule and the reason, unless the map is legal."""
        if not self.ok:
            raise ValueError(f"illegal map, rule {self.rule}: {self.reason}")


class Reuse(NamedTuple):
    """A reuse vector of a tensor under a map, turned so that time does not run backwards.

    Attributes:
        vector: step of the nest.
        hop: step of the array.
        delay: cycles.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 4)
        >>> reuses(nest, SpaceTimeMap.keeping(nest, "C"), "A")
        (Reuse(vector=(0, 1, 0), hop=(0, 1), delay=1),)
    """

    vector: Vector
    hop: Vector
    delay: int


def reuses(nest: LoopNest, map: SpaceTimeMap, tensor: Tensor) -> tuple[Reuse, ...]:
    """Reuse vectors of a tensor under a map, those that fit the box.

    What is read may travel either way along a vector. So may sums along a vector of
    several loops; along one loop they are handed on in the order of the loop.

    Raises:
        ValueError: an unknown tensor or loop; lists the valid ones.
    """
    tensor = nest.tensor(tensor)
    chain = (map.chains or {}).get(tensor)
    vectors = nest.applicable(tensor) if chain is None else chain
    *space, time = map.matrix(nest)
    found = []
    for d in vectors:
        delay = dot(time, d)
        single = sum(entry != 0 for entry in d) == 1
        turns = delay < 0 and chain is None
        if turns and not (tensor == nest.output and single):
            d, delay = tuple(-entry for entry in d), -delay
        found.append(Reuse(d, tuple(dot(row, d) for row in space), delay))
    return tuple(found)


def legal(
    nest: LoopNest,
    map: SpaceTimeMap,
    hops: str = "mesh",
    latency: int = 1,
    cleared: bool = True,
) -> Verdict:
    """Whether an array that follows the map computes what the nest says.

    Args:
        nest: with its extents.
        map: for its loops.
        hops: links of the array, a key of :data:`HOPS`.
        latency: cycles of the adder, after which a sum can be added to.
        cleared: True if the output is zero before; False if an element begins with its
            first product, so that one with an empty sum is never written (L6).

    Raises:
        ValueError: an unknown loop, hop or tensor (lists the valid ones), or a latency
            below 1.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 9)
        >>> packed = SpaceTimeMap(("j",), {"i": 8, "j": 1, "k": 1})
        >>> print(legal(nest, packed).reason)
        iterations (i=0, j=0, k=8) and (i=1, j=0, k=0) are both done by PE (0,) in cycle 8
    """
    lookup("links of the array", hops, HOPS)
    integer("legal", "latency", latency)
    for check in (
        _tags_agree(nest, map),
        _moves(nest, map),
        _injective(nest, map),
        _causal(nest, map, latency),
        _local(nest, map, hops),
        _fans(nest, map),
        None if cleared else _initialised(nest),
    ):
        if check is not None:
            return check
    return Verdict(True)


def _point(nest: LoopNest, z: Vector) -> str:
    pairs = zip(nest.loops, z, strict=True)
    return f"({', '.join(f'{loop}={value}' for loop, value in pairs)})"


def _tags_agree(nest: LoopNest, map: SpaceTimeMap) -> Verdict | None:
    for name, chain in (map.chains or {}).items():
        access = nest.access(name)
        for d in chain:
            if len(d) != len(nest.loops) or any(dot(row, d) for row in access.rows):
                return Verdict(
                    False,
                    "L7",
                    d,
                    f"{d} is no reuse vector of {name}: what arrives along it is "
                    "another element",
                )
    return None


def _moves(nest: LoopNest, map: SpaceTimeMap) -> Verdict | None:
    for tensor in nest.tensors:
        for reuse in reuses(nest, map, tensor):
            if reuse.delay == 0 and not any(reuse.hop):
                start = tuple(max(0, -entry) for entry in reuse.vector)
                end = tuple(a + b for a, b in zip(start, reuse.vector, strict=True))
                return Verdict(
                    False,
                    "L3",
                    (start, end),
                    f"the reuse vector {_point(nest, reuse.vector)} of {tensor} is mapped "
                    f"to no distance and no time, so iterations {_point(nest, start)} and "
                    f"{_point(nest, end)} meet",
                )
    return None


def _injective(nest: LoopNest, map: SpaceTimeMap) -> Verdict | None:
    pair = collision(nest, map)
    if pair is None:
        return None
    *space, time = map.matrix(nest)
    first, second = pair
    element = tuple(dot(row, first) for row in space)
    return Verdict(
        False,
        "L1",
        pair,
        f"iterations {_point(nest, first)} and {_point(nest, second)} are both done by "
        f"PE {element} in cycle {dot(time, first)}",
    )


def collision(nest: LoopNest, map: SpaceTimeMap) -> tuple[Vector, Vector] | None:
    """Two iterations that share a processing element and a cycle, if there are any.

    Exact for any map: a search for a step within the box that T maps to zero, which is
    cut wherever the loops that are left cannot bring every row back to zero.
    """
    matrix = map.matrix(nest)
    if len(matrix) == len(nest.loops) and determinant(matrix):
        return None
    step = _zero_step(matrix, nest.extents)
    if step is None:
        return None
    start = tuple(max(0, -entry) for entry in step)
    end = tuple(a + b for a, b in zip(start, step, strict=True))
    return min(start, end), max(start, end)


def _zero_step(matrix: Matrix, extents: Vector) -> Vector | None:
    """A step Δ ≠ 0 with matrix · Δ = 0 and |Δ_l| < extent of l; None if there is none."""
    reach = [extent - 1 for extent in extents]
    # The loops of the largest weights first: they leave the fewest choices.
    weight = [max(abs(row[loop]) for row in matrix) for loop in range(len(extents))]
    order = sorted(range(len(extents)), key=lambda loop: -weight[loop])
    left = [
        [sum(abs(row[o]) * reach[o] for o in order[place:]) for row in matrix]
        for place in range(len(order) + 1)
    ]
    step = [0] * len(extents)

    def search(place: int, sums: tuple[int, ...], moved: bool) -> bool:
        if place == len(order):
            return moved and not any(sums)
        loop = order[place]
        low, high = -reach[loop] if moved else 0, reach[loop]
        for row, total, rest in zip(matrix, sums, left[place + 1], strict=True):
            entry = row[loop]
            if entry:
                bounds = sorted(((-rest - total) / entry, (rest - total) / entry))
                low = max(low, math.ceil(bounds[0]))
                high = min(high, math.floor(bounds[1]))
            elif abs(total) > rest:
                return False
        # Small steps first: the witness is then easy to read.
        for value in sorted(range(low, high + 1), key=abs):
            step[loop] = value
            more = tuple(
                t + row[loop] * value for t, row in zip(sums, matrix, strict=True)
            )
            if search(place + 1, more, moved or value != 0):
                return True
        step[loop] = 0
        return False

    return tuple(step) if search(0, (0,) * len(matrix), False) else None


def _causal(nest: LoopNest, map: SpaceTimeMap, latency: int) -> Verdict | None:
    for tensor in nest.tensors:
        for reuse in reuses(nest, map, tensor):
            if reuse.delay < 0:
                why = f"runs backwards in time ({reuse.delay} cycles)"
            elif tensor == nest.output and 0 < reuse.delay < latency:
                why = f"takes {reuse.delay} cycles, the adder {latency}"
            else:
                continue
            step = _point(nest, reuse.vector)
            return Verdict(
                False,
                "L2",
                reuse.vector,
                f"{tensor} is handed on by {step}, which {why}",
            )
    return None


def _local(nest: LoopNest, map: SpaceTimeMap, hops: str) -> Verdict | None:
    for tensor in nest.tensors:
        for reuse in reuses(nest, map, tensor):
            steps = [abs(step) for step in reuse.hop]
            length = {"mesh": sum(steps), "diagonal": max(steps), "any": 0}[hops]
            if length > 1:
                return Verdict(
                    False,
                    "L4",
                    reuse.vector,
                    f"{tensor} is handed on by {_point(nest, reuse.vector)}, a hop of "
                    f"{reuse.hop}; the array has links {HOPS[hops]}",
                )
    return None


def _fans(nest: LoopNest, map: SpaceTimeMap) -> Verdict | None:
    for name, rule in (map.fans or {}).items():
        tensor = nest.tensor(name)
        right = "successor" if tensor == nest.output else "predecessor"
        vectors = [reuse.vector for reuse in reuses(nest, map, tensor)]
        if rule == right or len(vectors) < 2:
            continue
        # The first iteration with two neighbours along its vectors deals with both.
        z = tuple(
            max(max(0, -d[loop]) for d in vectors) for loop in range(len(nest.loops))
        )
        counted = (
            "its sum is added twice" if tensor == nest.output else "it is sent twice"
        )
        return Verdict(
            False,
            "L5",
            z,
            f"{tensor} is {'written' if tensor == nest.output else 'read'} and has "
            f"{len(vectors)} reuse vectors; by the rule {rule!r} iteration "
            f"{_point(nest, z)} deals with more than one neighbour: {counted}",
        )
    return None


def _initialised(nest: LoopNest) -> Verdict | None:
    element = next(iter(np.argwhere(untouched(nest))), None)
    if element is None:
        return None
    place = tuple(int(i) for i in element)
    return Verdict(
        False,
        "L6",
        place,
        f"no product reaches element {place} of {nest.output}, which nothing sets to zero",
    )


def untouched(nest: LoopNest) -> np.ndarray:
    """Boolean array of the output: True where an element's sum is empty.

    Such elements are pixels of an input gradient that no tap reaches, where the stride is
    larger than the kernel.

    Example:
        >>> from elision.products import Conv2dGeometry, Product
        >>> layer = Conv2dGeometry(1, 1, 5, 5, 1, kernel=1, stride=2)
        >>> int(untouched(LoopNest.of(Product.INPUT_GRAD, layer)).sum())
        16
    """
    access = nest.access(nest.output)
    shape = nest.tensor_shape(nest.output)
    # Axes share no loop in nests of layers; where they do, all iterations are walked.
    axes = [[loop for loop, entry in enumerate(row) if entry] for row in access.rows]
    used = [loop for axis in axes for loop in axis]
    if len(used) != len(set(used)):
        met = np.zeros(shape, bool)
        for z in np.ndindex(*nest.extents):
            if access.holds(element := access.at(z)):
                met[element] = True
        return ~met
    met = np.ones((), bool)
    for axis, row, more, size in zip(
        axes, access.rows, access.offset, shape, strict=True
    ):
        places = np.array([more])
        for loop in axis:
            steps = row[loop] * np.arange(nest.extents[loop])
            places = (places[:, None] + steps).ravel()
        line = np.zeros(size, bool)
        line[places[(places >= 0) & (places < size)]] = True
        met = met[..., None] & line
    return ~met
