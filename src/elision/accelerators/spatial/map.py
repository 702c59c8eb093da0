"""The space-time map: where and when each iteration of a loop nest is done.

Iteration z is done by the processing element ``S z`` in cycle ``λ · z``. S has an integer
row for each dimension of the array, λ is one integer row; together they are T.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from elision.accelerators.spatial.integers import Matrix, Vector
from elision.accelerators.spatial.nest import LoopNest, Tensor
from elision.common.names import lookup

__all__ = ["FANS", "Row", "SpaceTimeMap"]

#: A row of a map: the name of a loop, coefficients by loop, or one for every loop.
Row = str | Mapping[str, int] | Sequence[int]

#: Which neighbour along its reuse vectors an iteration deals with, by the tensor's role.
FANS = {
    "predecessor": "takes its datum from the first one before it: what is read",
    "successor": "hands its sum to the first one after it: what is written",
}


@dataclass(frozen=True)
class SpaceTimeMap:
    """Processing element and cycle of every iteration of a nest.

    Attributes:
        space: a row for each dimension of the array: the name of a loop, ``{loop:
            coefficient}``, or an integer for every loop of the nest.
        time: λ, as ``{loop: weight}`` or an integer for every loop.
        chains: reuse vectors of a tensor in the order in which they are tried; default:
            :meth:`LoopNest.reuse_vectors`.
        fans: by tensor, a key of :data:`FANS`; default: what its role asks for.

    Raises:
        ValueError: no row of space, or an entry that is no integer; unknown loops are
            found when the map meets a nest, and answered with the valid ones.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 4)
        >>> stays = SpaceTimeMap(("i", "j"), {"i": 1, "j": 1, "k": 1})
        >>> stays == SpaceTimeMap.keeping(nest, "C"), stays.matrix(nest)
        (True, ((1, 0, 0), (0, 1, 0), (1, 1, 1)))
    """

    space: tuple[Row, ...]
    time: Row
    chains: Mapping[Tensor, Matrix] | None = None
    fans: Mapping[Tensor, str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.space, str) or not self.space:
            raise ValueError(
                f"SpaceTimeMap(space={self.space!r}): give a row for each dimension of "
                "the array, such as ('i', 'j')"
            )
        object.__setattr__(self, "space", tuple(_row(row) for row in self.space))
        object.__setattr__(self, "time", _row(self.time))
        for rule in (self.fans or {}).values():
            lookup("fan rule", rule, FANS)

    def __hash__(self) -> int:
        return hash(
            tuple(
                tuple(row.items()) if isinstance(row, dict) else row
                for row in (*self.space, self.time)
            )
        )

    @classmethod
    def keeping(cls, nest: LoopNest, tensor: Tensor) -> "SpaceTimeMap":
        """The systolic map of a 2-D array whose elements each keep a value of a tensor.

        The array's sides are two loops that index the tensor, one for each of the other
        two tensors to pass along: of several the longest. The loops that do not index it
        are innermost in time, those that do and have no side outermost.

        Args:
            nest: of any three tensors.
            tensor: one of them; ``"output"`` is the one that is written.

        Raises:
            ValueError: an unknown tensor (lists the valid ones), or one that no two loops
                index so.

        Example:
            >>> SpaceTimeMap.keeping(LoopNest.matmul(8, 4, 2), "B").space
            ('k', 'j')
        """
        return _keeping(nest, nest.tensor(tensor))

    @property
    def dimensions(self) -> int:
        """Dimensions of the array."""
        return len(self.space)

    def matrix(self, nest: LoopNest) -> Matrix:
        """T, the rows of space and then that of time, for the loops of a nest.

        Raises:
            ValueError: a loop that the nest has not (lists the valid ones), or a row of
                another length.
        """
        return _matrix(self, tuple(nest.loops))

    def space_rows(self, nest: LoopNest) -> Matrix:
        """S for the loops of a nest; errors as :meth:`matrix`."""
        return self.matrix(nest)[:-1]

    def time_row(self, nest: LoopNest) -> Vector:
        """λ for the loops of a nest; errors as :meth:`matrix`."""
        return self.matrix(nest)[-1]

    def names(self) -> set[str]:
        """Loops that the map names."""
        rows = (*self.space, self.time)
        named = {row for row in rows if isinstance(row, str)}
        return named.union(*(row for row in rows if isinstance(row, dict)))

    def sides(self, nest: LoopNest) -> tuple[str, ...] | None:
        """The loops that are the array's sides; None unless each row of S is a loop."""
        found = []
        for row in self.space_rows(nest):
            used = [loop for loop, entry in zip(nest.loops, row, strict=True) if entry]
            if len(used) != 1 or sum(row) != 1:
                return None
            found.append(used[0])
        return tuple(found)


def _row(row: Row) -> Row:
    if isinstance(row, str):
        return row
    entries = row.values() if isinstance(row, Mapping) else row
    if any(isinstance(entry, bool) or not isinstance(entry, int) for entry in entries):
        raise ValueError(f"SpaceTimeMap: the row {row!r} must have integers")
    return dict(row) if isinstance(row, Mapping) else tuple(row)


@lru_cache(maxsize=65536)
def _matrix(map: SpaceTimeMap, loops: tuple[str, ...]) -> Matrix:
    table = dict.fromkeys(loops)

    def numbers(row: Row) -> Vector:
        if isinstance(row, str):
            row = {row: 1}
        if isinstance(row, Mapping):
            for name in row:
                lookup("loop", name, table)
            return tuple(row.get(loop, 0) for loop in loops)
        if len(row) != len(loops):
            raise ValueError(
                f"SpaceTimeMap: the row {row} must have {len(loops)} entries, one for "
                f"each loop: {', '.join(loops)}"
            )
        return tuple(row)

    return tuple(numbers(row) for row in (*map.space, map.time))


@lru_cache(maxsize=4096)
def _keeping(nest: LoopNest, tensor: Tensor) -> SpaceTimeMap:
    first, second = (other for other in nest.accesses if other != tensor)
    # Loops along which the other tensors are reused; a loop of all three tensors has no
    # reuse and is no side.
    sides = {
        other: [loop for loop in nest.reused_along(other) if nest.indexes(tensor, loop)]
        for other in (first, second)
    }
    # Down a column passes the sum, or the second operand where the sum stays.
    across, down = (second, first) if first == nest.output else (first, second)
    # Two loops of one index would lay the tensor on diagonals, where it does not stay.
    pairs = [
        (row, column)
        for row in sides[down]
        for column in sides[across]
        if not any(
            entry[nest.loop(row)] and entry[nest.loop(column)]
            for entry in nest.access(tensor).rows
        )
    ]
    if not pairs:
        raise ValueError(
            f"no two loops index {tensor!r} with {first!r} reused along one and "
            f"{second!r} along the other; the nest has {', '.join(nest.loops)}"
        )
    space = max(pairs, key=lambda pair: nest.loops[pair[0]] * nest.loops[pair[1]])
    inner = [loop for loop in nest.reused_along(tensor) if loop not in space]
    outer = [loop for loop in nest.loops if loop not in (*space, *inner)]
    time, weight = dict.fromkeys(space, 1), 1
    for loop in reversed((*outer, *inner)):
        time[loop] = weight
        weight *= nest.loops[loop]
    ordered = {loop: time[loop] for loop in nest.loops}
    return SpaceTimeMap(space, ordered)
