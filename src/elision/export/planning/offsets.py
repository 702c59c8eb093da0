"""Where each tensor lies in one static arena: no two that are live together overlap."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from elision.common.checks import integer
from elision.export.planning.graph import Buffer

__all__ = ["Placement", "greedy_by_lifetime", "greedy_by_size", "least_arena", "place"]

#: Partial placements after which the exact search gives up (own choice): seconds for
#: hundreds of buffers.
NODES = 5_000

#: Buffers beyond which it is not tried (own choice): it nests as deep as there are.
_MOST = 400


class Placement(NamedTuple):
    """Offsets of buffers in an arena.

    Attributes:
        offsets: bytes from the arena's start, one for each buffer.
        size_bytes: of the arena.
        least_bytes: no placement of these buffers needs fewer bytes.

    Example:
        >>> place([Buffer(("x",), 4, 0, 1), Buffer(("y",), 2, 1, 2)])
        Placement(offsets=(0, 4), size_bytes=6, least_bytes=6)
    """

    offsets: tuple[int, ...]
    size_bytes: int
    least_bytes: int


def place(
    buffers: Sequence[Buffer], *, alignment: int = 1, nodes: int = NODES
) -> Placement:
    """The smallest arena found: greedy by size; by lifetime and an exact search beside it.

    The others are tried only where the first leaves a gap to the bound.

    Args:
        buffers: with lifetimes.
        alignment: offsets are multiples of so many bytes.
        nodes: partial placements to try at most in the exact search.

    Raises:
        ValueError: the alignment is no positive integer.

    Example:
        >>> chain = [Buffer(("x",), 10, 0, 0), Buffer(("y",), 20, 0, 1)]
        >>> place([*chain, Buffer(("z",), 10, 1, 1)])
        Placement(offsets=(20, 0, 20), size_bytes=30, least_bytes=30)
    """
    found = greedy_by_size(buffers, alignment=alignment)
    if found.size_bytes > found.least_bytes:
        other = greedy_by_lifetime(buffers, alignment=alignment)
        found = min(found, other, key=lambda placement: placement.size_bytes)
    if found.size_bytes > found.least_bytes:
        found = least_arena(buffers, found, alignment=alignment, nodes=nodes)
    return found


def greedy_by_size(buffers: Sequence[Buffer], *, alignment: int = 1) -> Placement:
    """Buffers from the largest to the smallest, each into the lowest gap that holds it.

    The rule of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
    Inference", 2020, section 5, with the lowest gap in place of the tightest. Equal
    sizes are placed from the latest first step to the earliest: TFLite Micro places them
    so [measured], and this rule gives its arena to the byte.
    """
    return _greedy(buffers, alignment, lambda b: (-b.size_bytes, -b.first))


def greedy_by_lifetime(buffers: Sequence[Buffer], *, alignment: int = 1) -> Placement:
    """Buffers from the longest-lived to the shortest-lived, each into the lowest gap.

    For networks that keep growing concatenations, such as DenseNet, where what stays
    belongs at the bottom. Equal lifetimes are placed by their first step.
    """
    return _greedy(buffers, alignment, lambda b: (b.first - b.last, b.first))


def _greedy(
    buffers: Sequence[Buffer], alignment: int, rank: Callable[[Buffer], tuple[int, int]]
) -> Placement:
    """Each buffer into the lowest gap that holds it, in the order of a rank."""
    integer("place", "alignment", alignment, ">= 1")
    ranked = sorted(range(len(buffers)), key=lambda i: rank(buffers[i]))
    offsets: dict[int, int] = {}
    for i in ranked:
        taken = sorted(
            (offsets[j], offsets[j] + buffers[j].size_bytes)
            for j in offsets
            if _together(buffers[i], buffers[j])
        )
        offset = 0
        for low, high in taken:
            if low - offset >= buffers[i].size_bytes:
                break
            offset = max(offset, _up(high, alignment))
        offsets[i] = offset
    return _placement(buffers, offsets, _floor(buffers, alignment))


def least_arena(
    buffers: Sequence[Buffer],
    known: Placement,
    *,
    alignment: int = 1,
    nodes: int = NODES,
) -> Placement:
    """An arena smaller than a known one, if a search of ``nodes`` steps finds it.

    Every placement can be pushed down until each buffer lies at 0 or on top of one that
    is live with it. Sorted by offset, such a placement is the one that puts its buffers
    in this order on top of all those below that are live with them; so it is enough to
    try orders whose offsets do not fall. If the search ends by itself, ``least_bytes``
    is the size found.
    """
    floor, best = known.least_bytes, known
    count = len(buffers)
    if count > _MOST:
        return known
    beside = [
        [j for j in range(count) if j != i and _together(buffers[i], buffers[j])]
        for i in range(count)
    ]
    tried = 0

    def extend(offsets: dict[int, int], lowest: tuple[int, bool, int]) -> bool:
        """Place one more buffer in every way; False: stop."""
        nonlocal best, tried
        if len(offsets) == count:
            best = _placement(buffers, offsets, floor)
            return best.size_bytes > floor
        ways = []
        for i in range(count):
            if i in offsets:
                continue
            size = buffers[i].size_bytes
            below = (
                offsets[j] + buffers[j].size_bytes for j in beside[i] if j in offsets
            )
            offset = _up(max(below, default=0), alignment)
            if offset + size >= best.size_bytes:
                return True  # it only rises from here
            # At one offset an empty buffer comes first: another may start there, too.
            ways.append((offset, size > 0, i))
        for way in sorted(ways):
            if way < lowest:  # the same placement in another order
                continue
            tried += 1
            if tried > nodes:
                return False
            if not extend({**offsets, way[2]: way[0]}, way):
                return False
        return True

    ended = extend({}, (0, False, -1))
    if ended:
        best = best._replace(least_bytes=best.size_bytes)
    return best


def _placement(
    buffers: Sequence[Buffer], offsets: dict[int, int], floor: int
) -> Placement:
    ends = (offsets[i] + b.size_bytes for i, b in enumerate(buffers))
    return Placement(
        tuple(offsets[i] for i in range(len(buffers))), max(ends, default=0), floor
    )


def _floor(buffers: Sequence[Buffer], alignment: int) -> int:
    """Bytes live at the fullest step; all but the topmost start on a boundary."""
    steps = {b.first for b in buffers}
    least = 0
    for step in steps:
        live = [b.size_bytes for b in buffers if b.first <= step <= b.last]
        padded = [_up(size, alignment) - size for size in live]
        least = max(least, sum(live) + sum(padded) - max(padded, default=0))
    return least


def _together(a: Buffer, b: Buffer) -> bool:
    return a.first <= b.last and b.first <= a.last


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
