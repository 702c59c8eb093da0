"""Names of maps: what stays, what moves, and the published dataflows that they are."""

from collections.abc import Sequence

from elision.accelerators.spatial.derived import letters
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest, Tensor

__all__ = ["dataflow", "on_diagonals", "pair_class"]

_WORDS = {"T": "stays", "S": "systolic", "M": "multicast"}


def pair_class(nest: LoopNest, sides: Sequence[str]) -> str:
    """What two loops as the sides of an array mean for its tensors.

    A tensor is passed along a side if the side's loop does not index it. Where two
    different tensors are, the third stays, or lies on diagonals if one of its reuse
    vectors is in the plane of the array; where it is one for both sides, the whole array
    shares that tensor. Along a loop of groups, which indexes all tensors, none is passed:
    groups are side by side.

    Raises:
        ValueError: a loop that the nest has not; lists the valid ones.

    Example:
        >>> pair_class(LoopNest.matmul(3, 5, 4), ("i", "j"))
        'C stays'
    """
    along = [
        {tensor for tensor in nest.accesses if not nest.indexes(tensor, side)}
        for side in sides
    ]
    if not all(along):
        return "groups side by side"
    passed = set().union(*along)
    if len(passed) == 1:
        return f"{passed.pop()} shared"
    rest = [tensor for tensor in nest.accesses if tensor not in passed]
    if len(rest) != 1:
        return "no tensor stays"
    return (
        f"{rest[0]} {'on diagonals' if on_diagonals(nest, rest[0], sides) else 'stays'}"
    )


def on_diagonals(nest: LoopNest, tensor: Tensor, sides: Sequence[str]) -> bool:
    """Whether a reuse vector of several loops lies in the plane of the sides.

    Raises:
        ValueError: an unknown tensor or loop; lists the valid ones.
    """
    plane = {nest.loop(side) for side in sides}
    for d in nest.reuse_vectors(tensor):
        used = {loop for loop, entry in enumerate(d) if entry}
        if len(used) > 1 and used <= plane:
            return True
    return False


def dataflow(nest: LoopNest, map: SpaceTimeMap) -> str:
    """A map in words: the published name if it has one, then each tensor's way.

    Example:
        >>> nest = LoopNest.matmul(3, 5, 4)
        >>> dataflow(nest, SpaceTimeMap.keeping(nest, "C"))
        'output-stationary (A systolic, B systolic, C stays)'
    """
    ways = {}
    for tensor, letter in zip(nest.tensors, letters(nest, map), strict=True):
        word = _WORDS[letter]
        ways[tensor] = "tree" if letter == "M" and tensor == nest.output else word
    return (
        f"{_name(nest, map, ways)} ({', '.join(f'{t} {w}' for t, w in ways.items())})"
    )


def _name(nest: LoopNest, map: SpaceTimeMap, ways: dict[str, str]) -> str:
    sides = map.sides(nest)
    if sides is not None and len(sides) == 2:
        placed = pair_class(nest, sides)
        if placed.endswith("on diagonals"):
            return "row-stationary"
        if placed.endswith(("shared", "side by side")):
            alone = [tensor for tensor, way in ways.items() if way == "stays"]
            return (
                f"{_stationary(nest, alone[0])}, {placed}"
                if len(alone) == 1
                else placed
            )
        if placed.endswith("stays"):
            return _stationary(nest, placed.split()[0])
    kept = [tensor for tensor, way in ways.items() if way == "stays"]
    if len(kept) == 1:
        return _stationary(nest, kept[0])
    if set(ways.values()) == {"systolic"}:
        return "hexagonal" if sides is None else "systolic"
    return "bus-fed" if not kept else "stationary"


def _stationary(nest: LoopNest, tensor: Tensor) -> str:
    own = {"grad_output": "gradient"}
    name = "output" if tensor == nest.output else own.get(tensor, tensor)
    return f"{name}-stationary"
