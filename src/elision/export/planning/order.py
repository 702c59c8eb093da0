"""The order of a graph's operations that keeps the fewest bytes live.

Finding it is NP-hard in general; a network's graph has few branches at a time, so that a
search over the sets of operations that can have run (the downsets of the graph) is small.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from elision.export.planning.graph import Graph, peak_bytes

__all__ = ["Order", "best_order"]

#: Sets of operations after which the search gives up (own choice): under a second.
STATES = 20_000


class Order(NamedTuple):
    """An order of a graph's operations and what is known of it.

    Attributes:
        indices: of the operations, first to last.
        peak_bytes: the most bytes live at one step.
        least_bytes: no order has a lower peak than this.

    Example:
        >>> Order((0, 1), peak_bytes=6, least_bytes=6).optimal
        True
    """

    indices: tuple[int, ...]
    peak_bytes: int
    least_bytes: int

    @property
    def optimal(self) -> bool:
        """True if the search proved that no order has a lower peak."""
        return self.peak_bytes == self.least_bytes


def best_order(graph: Graph, *, in_place: bool = False, states: int = STATES) -> Order:
    """The order of lowest peak, or the best found with a bound on how much better one is.

    Sets of executed operations are expanded by the peak needed to reach them (a
    shortest path whose length is the largest step, so the first complete set is
    optimal). An operation that frees at least what it makes, within the peak so far, is
    run at once: moved to the front of any order it lowers every step after it. Beyond
    ``states`` sets the best of three orders is returned: as given, greedy by the bytes
    live after a step, and depth first; the peak of the next set is then the bound.

    Args:
        graph: the operations.
        in_place: as in :func:`~elision.export.planning.graph.buffers`.
        states: sets to expand at most.

    Example:
        >>> from elision.export.planning.graph import Operation
        >>> arm = lambda name: (
        ...     Operation(f"{name}1", "conv2d", ("x",), (f"{name}1",)),
        ...     Operation(f"{name}2", "conv2d", (f"{name}1",), (f"{name}2",)),
        ... )
        >>> (a1, a2), (b1, b2) = arm("a"), arm("b")
        >>> join = Operation("cat", "cat", ("a2", "b2"), ("y",))
        >>> sizes = {"x": 10, "a1": 20, "a2": 2, "b1": 20, "b2": 2, "y": 4}
        >>> wide = Graph(sizes, (a1, b1, a2, b2, join), ("x",), ("y",))
        >>> best = best_order(wide)
        >>> peak_bytes(wide), best.peak_bytes, best.optimal
        (50, 32, True)
    """
    steps = _Steps(graph, in_place)
    found, bound = _search(steps, states)
    candidates = (
        [found]
        if found
        else [
            list(range(len(graph.operations))),
            _greedy(steps),
            _depth_first(steps),
        ]
    )
    peaks = [peak_bytes(graph, order, in_place=in_place) for order in candidates]
    best = min(range(len(peaks)), key=peaks.__getitem__)
    return Order(tuple(candidates[best]), peaks[best], min(bound, peaks[best]))


class _Steps:
    """A graph as bit masks: what may run after a set of operations, and what it costs."""

    def __init__(self, graph: Graph, in_place: bool) -> None:
        writer, readers = dict.fromkeys(graph.inputs, -1), dict.fromkeys(graph.sizes, 0)
        self.count = len(graph.operations)
        for i, operation in enumerate(graph.operations):
            writer.update(dict.fromkeys(operation.writes, i))
            for name in operation.reads:
                readers[name] |= 1 << i
        self.full = (1 << self.count) - 1
        kept = set(graph.outputs)
        sizes = graph.sizes
        #: Bytes before the first step. An input that nobody reads counts at step 0.
        self.start = sum(sizes[name] for name in graph.inputs)
        self.unread = sum(
            sizes[name]
            for name in graph.inputs
            if not readers[name] and name not in kept
        )
        self.needs, self.makes, self.drops = [], [], []
        self.frees: list[list[tuple[int, int]]] = []
        self.over: list[list[int]] = []
        for i, operation in enumerate(graph.operations):
            before = {writer[name] for name in operation.reads} - {-1}
            self.needs.append(sum(1 << j for j in before))
            self.makes.append(sum(sizes[name] for name in operation.writes))
            self.drops.append(  # made and read by nobody: live in this step alone
                sum(
                    sizes[name]
                    for name in operation.writes
                    if not readers[name] and name not in kept
                )
            )
            own = 1 << i
            dying = [n for n in dict.fromkeys(operation.reads) if n not in kept]
            self.frees.append([(readers[n] & ~own, sizes[n]) for n in dying])
            first = operation.writes[0] if operation.writes else None
            self.over.append(
                [
                    readers[n] & ~own
                    for n in operation.in_place
                    if in_place and n not in kept and sizes[n] == sizes[first or n]
                ]
            )
            if self.over[-1]:
                self.over[-1].append(sizes[operation.writes[0]])

    def ready(self, done: int) -> Iterator[int]:
        """Operations that may run after the set ``done``."""
        for i in range(self.count):
            if not done >> i & 1 and self.needs[i] & ~done == 0:
                yield i

    def run(self, i: int, done: int, live: int) -> tuple[int, int]:
        """Bytes during and after operation ``i``, run after the set ``done``."""
        made = self.makes[i]
        *masks, size = self.over[i] or [0]
        shared = size if any(mask & ~done == 0 for mask in masks) else 0
        during = live + made - shared
        freed = sum(size for mask, size in self.frees[i] if mask & ~done == 0)
        after = live + made - freed - self.drops[i]
        if not done:
            after -= self.unread
        return during, after

    def least(self) -> int:
        """A peak that every order has: the widest operation, all inputs at the start."""
        widest = max(
            self.makes[i]
            + sum(size for _, size in self.frees[i])
            - (self.over[i][-1] if self.over[i] else 0)
            for i in range(self.count)
        )
        return max(widest, self.start)


def _search(steps: _Steps, states: int) -> tuple[list[int] | None, int]:
    """The best order, or None; and the peak below which there is none."""
    start, live, path, peak = _run_free(steps, 0, steps.start, steps.least())
    waiting = [(peak, -start.bit_count(), start, live)]
    came: dict[int, tuple[int, list[int]]] = {start: (-1, path)}
    best = {start: peak}
    closed: set[int] = set()
    while waiting:
        peak, _, done, live = heapq.heappop(waiting)
        if done in closed:
            continue
        if done == steps.full:
            return _path(came, done), peak
        if len(closed) >= states:
            return None, peak
        closed.add(done)
        for i in steps.ready(done):
            during, after = steps.run(i, done, live)
            reached, reached_live, path, reached_peak = _run_free(
                steps, done | 1 << i, after, max(peak, during)
            )
            if reached_peak < best.get(reached, reached_peak + 1):
                best[reached] = reached_peak
                came[reached] = done, [i, *path]
                entry = (reached_peak, -reached.bit_count(), reached, reached_live)
                heapq.heappush(waiting, entry)
    raise AssertionError("a graph has an order")


def _run_free(
    steps: _Steps, done: int, live: int, peak: int
) -> tuple[int, int, list[int], int]:
    """Run operations that cost nothing; the set, its bytes, the operations, the peak."""
    path = []
    moved = True
    while moved:
        moved = False
        for i in steps.ready(done):
            during, after = steps.run(i, done, live)
            # What any first operation frees is not this one's doing.
            freed = 0 if done else steps.unread
            if during <= peak and after + freed <= live:
                done, live, moved = done | 1 << i, after, True
                path.append(i)
                break
    return done, live, path, peak


def _path(came: dict[int, tuple[int, list[int]]], done: int) -> list[int]:
    parts = []
    while done != -1:
        done, part = came[done]
        parts.append(part)
    return [i for part in reversed(parts) for i in part]


def _greedy(steps: _Steps) -> list[int]:
    """Always the operation after which the fewest bytes are live."""
    done, live, order = 0, steps.start, []
    while done != steps.full:
        runs = [(*steps.run(i, done, live)[::-1], i) for i in steps.ready(done)]
        live, _, i = min(runs)
        done |= 1 << i
        order.append(i)
    return order


def _depth_first(steps: _Steps) -> list[int]:
    """Always the operation that became ready last."""
    done, order = 0, []
    stack = list(steps.ready(0))[::-1]
    while stack:
        i = stack.pop()
        before = set(steps.ready(done))
        done |= 1 << i
        order.append(i)
        stack += [j for j in steps.ready(done) if j not in before]
    return order
