"""Value-exact simulation of a map: what every register holds, cycle by cycle.

An array is stepped through its cycles. In each, an element that has an iteration takes the
operands from where the map says: from memory, from a register of the element ``hop`` back
that was filled ``delay`` cycles ago, or from the bus of this cycle; it multiplies, adds
what arrived of the sum, and hands it on. Every value carries the index of its element of
the tensor as a tag, which is compared on arrival. No closed form is used, so that cycles,
elements, reads and writes are counted, not derived.

:func:`walk` is the oracle: iteration by iteration, in plain Python.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from elision.accelerators.spatial.integers import Vector, dot
from elision.accelerators.spatial.legality import Reuse, reuses
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest, Tensor

__all__ = ["Run", "simulate", "walk"]


@dataclass
class Run:
    """Result and counts of a simulation.

    Attributes:
        values: the output, in the shape of the nest's tensor; zero where its sum is empty.
        cycles: from the first iteration to the last.
        elements: processing elements that had an iteration.
        reads: elements read from memory, by tensor.
        writes: elements written to memory, by tensor.
        peak: most elements that a tensor read or wrote in one cycle.
        macs: iterations.

    Example:
        >>> nest = LoopNest.matmul(2, 2, 2)
        >>> operands = {"A": np.eye(2, dtype=int), "B": np.ones((2, 2), int)}
        >>> run = simulate(nest, SpaceTimeMap.keeping(nest, "C"), operands)
        >>> run.values.tolist(), run.cycles, run.elements, dict(run.reads)
        ([[1, 1], [1, 1]], 4, 4, {'A': 4, 'B': 4})
    """

    values: np.ndarray
    cycles: int = 0
    elements: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    peak: dict[str, int] = field(default_factory=dict)
    macs: int = 0


def _operands(
    nest: LoopNest, operands: Mapping[Tensor, Any]
) -> tuple[dict[Tensor, np.ndarray], type]:
    """Operands as arrays of one exact or double type, in the nest's shapes.

    Raises:
        ValueError: an operand is missing or of another shape; names both.
    """
    found = {}
    for tensor in nest.inputs:
        if tensor not in operands:
            raise ValueError(
                f"simulation of {nest.output}: give the values of "
                f"{' and '.join(nest.inputs)}, got {', '.join(operands) or 'none'}"
            )
        value, shape = np.asarray(operands[tensor]), nest.tensor_shape(tensor)
        if value.shape != shape:
            raise ValueError(
                f"simulation: {tensor} has shape {value.shape}, the nest needs {shape}"
            )
        found[tensor] = value
    whole = all(
        np.issubdtype(v.dtype, np.integer) or v.dtype == bool for v in found.values()
    )
    kind = np.int64 if whole else np.float64
    return {tensor: value.astype(kind) for tensor, value in found.items()}, kind


class _Places(NamedTuple):
    """Iterations of the box as flat arrays, one entry each, in order of time."""

    box: np.ndarray  # (loops, iterations)
    element: np.ndarray  # place in the grid of elements
    time: np.ndarray
    strides: Vector  # of the grid of elements
    size: int  # of that grid


def _places(nest: LoopNest, map: SpaceTimeMap) -> _Places:
    box = np.indices(nest.extents).reshape(len(nest.extents), -1)
    *space, time = (np.tensordot(row, box, 1) for row in np.array(map.matrix(nest)))
    grid = [int(row.max() - row.min()) + 1 for row in space]
    strides = tuple(int(np.prod(grid[place + 1 :])) for place in range(len(grid)))
    element = sum(
        (row - row.min()) * stride for row, stride in zip(space, strides, strict=True)
    )
    return _Places(
        box, np.asarray(element), time - time.min(), strides, int(np.prod(grid))
    )


class _Route(NamedTuple):
    """Where the values of one tensor come from, or go to, by iteration.

    ``end`` is the iteration at which this cycle's bus or tree begins (or ends), the
    iteration itself without one; ``link`` the vector by which that one is connected over
    time, −1 for memory.
    """

    end: np.ndarray
    link: np.ndarray


def _route(
    nest: LoopNest, box: np.ndarray, found: tuple[Reuse, ...], sign: int
) -> _Route:
    """Follow the first vector that stays in the box: back (−1) or on (+1)."""
    extents = np.array(nest.extents)[:, None]
    strides = [int(np.prod(nest.extents[place + 1 :])) for place in range(len(extents))]
    points = np.arange(box.shape[1])
    first = np.full(points.shape, -1)
    steps = np.zeros(points.shape, np.int64)
    for place in reversed(range(len(found))):
        d = sign * np.array(found[place].vector)[:, None]
        other = box + d
        inside = ((other >= 0) & (other < extents)).all(0)
        first[inside] = place
        if found[place].delay == 0:
            room = np.where(
                d > 0, (extents - 1 - box) // np.maximum(d, 1), box.max() + 1
            )
            room = np.where(d < 0, box // np.maximum(-d, 1), room)
            steps[inside] = room.min(0)[inside]
    end = points
    jumps = np.zeros(points.shape, np.int64)
    for place, reuse in enumerate(found):
        if reuse.delay == 0:
            jump = sign * dot(strides, reuse.vector)
            jumps = np.where(first == place, steps * jump, jumps)
    while jumps[end].any():
        end = end + jumps[end]
    return _Route(end, first[end])


def simulate(nest: LoopNest, map: SpaceTimeMap, operands: Mapping[Tensor, Any]) -> Run:
    """The product of a nest's operands by the array of a map.

    Args:
        nest: whose box is simulated whole, every iteration in memory at once.
        map: injective for it; other rules are checked by the values that arrive.
        operands: values by tensor, in the nest's shapes. Integers are summed exactly,
            anything else in float64.

    Raises:
        ValueError: an operand is missing or has another shape.
        AssertionError: two iterations meet, a value arrives that is not the one needed, or
            an element of the output is written twice: the map is illegal.
    """
    given, kind = _operands(nest, operands)
    places = _places(nest, map)
    box, element, time = places.box, places.element, places.time
    order = np.argsort(time, kind="stable")
    last = np.full(places.size, -1)  # iteration of every element
    cycles = int(time.max()) + 1
    bounds = np.searchsorted(time[order], np.arange(cycles + 1))
    inputs = [
        _Input(nest, map, tensor, given[tensor], places, kind) for tensor in nest.inputs
    ]
    output = _Output(nest, map, places, kind)
    for cycle in range(cycles):
        now = order[bounds[cycle] : bounds[cycle + 1]]
        at = element[now]
        last[at] = now
        if (last[at] != now).any():
            raise AssertionError(f"two iterations share an element in cycle {cycle}")
        value = output.arrived(cycle, now, at)
        factors = [tensor.take(cycle, now, at) for tensor in inputs]
        output.hand_on(cycle, now, at, value + np.prod(factors, axis=0, dtype=kind))
    return Run(
        output.finished(),
        cycles,
        int((last >= 0).sum()),
        Counter({tensor.name: tensor.count for tensor in inputs}),
        Counter({nest.output: output.count}),
        {each.name: each.peak for each in (*inputs, output)},
        box.shape[1],
    )


class _Stream:
    """What inputs and the output share: tags, and links as steps in the grid."""

    def __init__(
        self, nest: LoopNest, map: SpaceTimeMap, tensor: Tensor, places: _Places
    ) -> None:
        self.name = tensor
        self.found = reuses(nest, map, tensor)
        if any(reuse.delay < 0 for reuse in self.found):
            raise AssertionError(f"{tensor}: handed on backwards in time")
        access, shape = nest.access(tensor), nest.tensor_shape(tensor)
        index = np.array(access.rows) @ places.box + np.array(access.offset)[:, None]
        inside = ((index >= 0) & (index < np.array(shape)[:, None])).all(0)
        # Tags tell elements of the padding apart, too.
        low = index.min(1, keepdims=True)
        spread = tuple(int(n) for n in index.max(1) - low[:, 0] + 1)
        self.tag: np.ndarray = np.asarray(
            np.ravel_multi_index(tuple(index - low), spread)
        )
        flat = np.ravel_multi_index(
            tuple(np.where(inside, index, 0)), shape
        )  # place in memory
        self.memory: np.ndarray = np.where(inside, flat, -1)
        self.steps = [dot(places.strides, reuse.hop) for reuse in self.found]
        self.depth = max((reuse.delay for reuse in self.found), default=0) + 1
        self.count = self.peak = 0

    def counted(self, moved: int) -> None:
        self.count += moved
        self.peak = max(self.peak, moved)


class _Input(_Stream):
    """An operand: its memory, and planes of what every element held in past cycles."""

    def __init__(
        self,
        nest: LoopNest,
        map: SpaceTimeMap,
        tensor: Tensor,
        values: np.ndarray,
        places: _Places,
        kind: type,
    ) -> None:
        super().__init__(nest, map, tensor, places)
        self.values = values.ravel()
        self.route = _route(nest, places.box, self.found, -1)
        self.element = places.element
        self.held = np.zeros((self.depth, places.size), kind)
        self.tags = np.full((self.depth, places.size), -1, np.int64)

    def take(self, cycle: int, now: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Values of this cycle's iterations ``now`` at the elements ``at``."""
        held, tags = self.held[cycle % self.depth], self.tags[cycle % self.depth]
        tags.fill(-1)
        end = self.route.end[now]
        own = end == now
        links = self.route.link[now]
        for place in {*links[own].tolist()}:
            chosen = own & (links == place)
            points, to = now[chosen], at[chosen]
            if place < 0:
                source = self.memory[points]
                held[to] = np.where(source < 0, 0, self.values[source])
                tags[to] = self.tag[points]
                self.counted(int((source >= 0).sum()))
            else:
                back = (cycle - self.found[place].delay) % self.depth
                held[to] = self.held[back][to - self.steps[place]]
                tags[to] = self.tags[back][to - self.steps[place]]
        if not own.all():
            bus = self.element[end]
            value, tag = held[bus], tags[bus]
            held[at], tags[at] = value, tag
        if (tags[at] != self.tag[now]).any():
            raise AssertionError(
                f"{self.name}: another element arrived in cycle {cycle}"
            )
        return held[at]


class _Output(_Stream):
    """The result: planes of sums on their way, and the memory in which they end."""

    def __init__(
        self, nest: LoopNest, map: SpaceTimeMap, places: _Places, kind: type
    ) -> None:
        super().__init__(nest, map, nest.output, places)
        self.shape = nest.tensor_shape(nest.output)
        self.values = np.zeros(int(np.prod(self.shape)), kind)
        self.written = np.full(self.values.shape, -1)  # iteration that wrote an element
        self.route = _route(nest, places.box, self.found, 1)
        self.element = places.element
        self.coming = np.zeros((self.depth, places.size), kind)
        self.tags = np.full((self.depth, places.size), -1, np.int64)

    def arrived(self, cycle: int, now: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Sums that were handed to this cycle's iterations."""
        coming, tags = self.coming[cycle % self.depth], self.tags[cycle % self.depth]
        some = tags[at] >= 0
        if (tags[at][some] != self.tag[now][some]).any() or some.sum() != (
            tags >= 0
        ).sum():
            raise AssertionError(f"{self.name}: a sum arrived astray in cycle {cycle}")
        value = np.where(some, coming[at], 0)
        coming.fill(0)
        tags.fill(-1)
        return value

    def hand_on(
        self, cycle: int, now: np.ndarray, at: np.ndarray, value: np.ndarray
    ) -> None:
        """Add up this cycle's trees, and hand their sums on or write them."""
        end = self.route.end[now]
        if (self.tag[end] != self.tag[now]).any():
            raise AssertionError(
                f"{self.name}: a tree adds two elements, cycle {cycle}"
            )
        if (end != now).any():
            roots, inverse = np.unique(end, return_inverse=True)
            total = np.zeros(roots.shape, value.dtype)
            np.add.at(total, inverse, value)
            now, at, value = roots, self.element[roots], total
        links = self.route.link[now]
        moved = 0
        for place in {*links.tolist()}:
            chosen = links == place
            points, sums = now[chosen], value[chosen]
            if place < 0:
                moved += self._write(points, sums)
                continue
            later = (cycle + self.found[place].delay) % self.depth
            to = at[chosen] + self.steps[place]
            tags = self.tags[later]
            if ((tags[to] >= 0) & (tags[to] != self.tag[points])).any():
                raise AssertionError(f"{self.name}: two sums meet, cycle {cycle}")
            tags[to] = self.tag[points]
            self.coming[later][to] += sums
        self.counted(moved)

    def _write(self, points: np.ndarray, sums: np.ndarray) -> int:
        target = self.memory[points]
        inside = target >= 0
        points, sums, target = points[inside], sums[inside], target[inside]
        before = (self.written[target] >= 0).any()
        self.values[target] = sums
        self.written[target] = points
        if before or (self.written[target] != points).any():
            raise AssertionError(f"{self.name}: an element is written twice")
        return target.size

    def finished(self) -> np.ndarray:
        """The output; no sum may be left on its way."""
        if (self.tags >= 0).any():
            raise AssertionError(f"{self.name}: a sum never arrived")
        return self.values.reshape(self.shape)


def walk(nest: LoopNest, map: SpaceTimeMap, operands: Mapping[Tensor, Any]) -> Run:
    """The same as :func:`simulate`, iteration by iteration: slow, and obviously right.

    A map whose ``fans`` state the wrong rule for the output is followed to its wrong sum.
    """
    given, kind = _operands(nest, operands)
    *space, time = map.matrix(nest)
    found = {tensor: reuses(nest, map, tensor) for tensor in nest.tensors}
    fans = map.fans or {}

    def neighbour(tensor: Tensor, z: Vector, sign: int) -> tuple[Vector, Reuse] | None:
        for reuse in found[tensor]:
            other = tuple(a + sign * b for a, b in zip(z, reuse.vector, strict=True))
            if all(0 <= i < n for i, n in zip(other, nest.extents, strict=True)):
                return other, reuse
        return None

    def where(z: Vector) -> tuple[Vector, int]:
        return tuple(dot(row, z) for row in space), dot(time, z)

    points = list(np.ndindex(*nest.extents))
    if len({where(z) for z in points}) != len(points):
        raise AssertionError("two iterations share an element and a cycle")
    reads: Counter[str] = Counter()
    writes: Counter[str] = Counter()
    moved: dict[str, Counter[int]] = {tensor: Counter() for tensor in nest.tensors}
    product: dict[Vector, Any] = dict.fromkeys(points, 1)
    for tensor in nest.inputs:
        access, held = nest.access(tensor), {}
        for z in points:
            # From here back to memory, then forward with the value and its tag.
            trail = [z]
            while trail[-1] not in held and (back := neighbour(tensor, trail[-1], -1)):
                (element, cycle), (before, then) = where(trail[-1]), where(back[0])
                hop = tuple(a - b for a, b in zip(element, before, strict=True))
                assert (hop, cycle - then) == (back[1].hop, back[1].delay)
                trail.append(back[0])
            if (head := trail[-1]) not in held:
                tag = access.at(head)
                inside = access.holds(tag)
                reads[tensor] += inside
                moved[tensor][where(head)[1]] += inside
                held[head] = (given[tensor][tag] if inside else kind(0), tag)
            for each in trail:
                held[each] = held[head]
                assert held[each][1] == access.at(each)
            product[z] = product[z] * held[z][0]

    access = nest.access(nest.output)
    values = np.zeros(nest.tensor_shape(nest.output), kind)
    if fans.get(nest.output) == "predecessor":
        taken = {back[0] for z in points if (back := neighbour(nest.output, z, -1))}
        for z in points:
            if z in taken or not access.holds(access.at(z)):
                continue
            trail = [z]
            while back := neighbour(nest.output, trail[-1], -1):
                trail.append(back[0])
            values[access.at(z)] += sum(product[each] for each in trail)
    else:
        ends: Counter[Vector] = Counter()
        for z in points:
            end = z
            while on := neighbour(nest.output, end, 1):
                assert access.at(on[0]) == access.at(end)
                end = on[0]
            if access.holds(tag := access.at(end)):
                values[tag] += product[z]
                ends[end] += 1
        assert len({access.at(end) for end in ends}) == len(ends)
        for end in ends:
            writes[nest.output] += 1
            moved[nest.output][where(end)[1]] += 1
    cycles = [where(z)[1] for z in points]
    return Run(
        values,
        max(cycles) - min(cycles) + 1,
        len({where(z)[0] for z in points}),
        Counter({tensor: reads[tensor] for tensor in nest.inputs}),
        writes,
        {tensor: max(counts.values(), default=0) for tensor, counts in moved.items()},
        len(points),
    )
