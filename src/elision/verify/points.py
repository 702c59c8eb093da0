"""Points of integer sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import islpy as isl

__all__ = ["part", "smallest"]


def smallest(
    at: Any, sizes: tuple[str, ...]
) -> tuple[dict[str, int], list[int]] | None:
    """The point of a set with the least sum of sizes, then the first in order.

    Args:
        at: a set whose parameters are the sizes.
        sizes: their names.

    Returns:
        The sizes, and the point's places; None: the set is empty.
    """
    count = len(sizes)
    if at.has_tuple_id():
        at = at.reset_tuple_id()
    flat = at.move_dims(isl.dim_type.set, 0, isl.dim_type.param, 0, count)
    names = [f"x{n}" for n in range(flat.dim(isl.dim_type.set))]
    total = " + ".join(names[:count]) or "0"
    listed = ", ".join(names)
    # An unnamed place for the sum of the sizes comes first in the order.
    image = flat.apply(isl.Map(f"{{ [{listed}] -> [{total}, {listed}] }}"))
    try:
        point = image.lexmin().sample_point()
    except isl.Error:  # the set has no least point
        point = image.sample_point()
    if point.is_void():
        return None
    values = coordinates(point, image.dim(isl.dim_type.set))[1:]
    return dict(zip(sizes, values, strict=False)), values[count:]


def part(at: Any, sizes: Mapping[str, int], places: Sequence[int]) -> Any:
    """The points of a set at given sizes, whose first places are given."""
    for name, value in sizes.items():
        n = at.find_dim_by_name(isl.dim_type.param, name)
        if n >= 0:
            at = at.fix_val(isl.dim_type.param, n, isl.Val(value))
    for n, value in enumerate(places):
        at = at.fix_val(isl.dim_type.set, n, isl.Val(value))
    return at


def coordinates(point: Any, count: int) -> list[int]:
    """The first places of a point."""
    places = (point.get_coordinate_val(isl.dim_type.set, n) for n in range(count))
    return [int(place.to_python()) for place in places]
