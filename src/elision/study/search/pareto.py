"""Pareto front: the points that no other point is better than in every objective."""

from collections.abc import Sequence

import numpy as np

__all__ = ["front"]


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Places of the points that no other dominates; all objectives are minimised.

    One point dominates another where it is nowhere worse and somewhere better. Equal points
    do not dominate one another, so that all of them stay; a point with NaN never does.

    Args:
        points: n points of k objectives each.

    Returns:
        Places in the order of the first objective, then of the next ones, then of the
        places themselves.

    Raises:
        ValueError: points have different numbers of objectives, or none.

    Example:
        >>> front([(1, 5), (2, 2), (3, 3), (4, 1), (2, 2)])
        [0, 1, 4, 3]
    """
    if len({len(point) for point in points}) > 1 or any(not len(p) for p in points):
        raise ValueError("front: points must have one number of objectives, at least 1")
    if not len(points):
        return []
    values = np.asarray(points, dtype=np.float64)
    order = [
        int(i)
        for i in np.lexsort(values.T[::-1])
        if not np.isnan(values[i]).any()  # a stable sort: equal points keep their order
    ]
    kept: list[int] = []
    for place in order:
        # What dominates a point stands before it in this order; so does, of several that
        # do, one of the front.
        before = values[kept]
        worse = (before <= values[place]).all(1) & (before < values[place]).any(1)
        if not worse.any():
            kept.append(place)
    return kept
