"""Contiguous stages of whole layers: the smallest largest stage, by bisection."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from elision.training.pipeline.costs import LayerCost, as_costs
from elision.training.pipeline.partition.base import Partition, whole_layers

__all__ = ["contiguous", "smallest_runs"]

#: Halvings of the interval of a bisection: as many as a double has binary digits.
_HALVINGS = 53


def contiguous(costs: Sequence[LayerCost], stages: int) -> Partition:
    """Runs of whole layers whose slowest is as fast as possible.

    Args:
        costs: of the layers.
        stages: number of stages, one processor each.

    Raises:
        ValueError: there are more stages than layers.

    Example:
        >>> chain = [LayerCost(t, t, t) for t in (1.0, 2.0, 3.0, 4.0)]
        >>> contiguous(chain, 2).layers
        ((0, 1, 2), (3,))
    """
    chain = as_costs(costs)
    if stages > len(chain):
        raise ValueError(
            f"{stages} stages need at least {stages} layers, and there are {len(chain)}: "
            "give fewer processors, or a schedule with fewer stages per processor"
        )
    counts = smallest_runs([cost.total for cost in chain], stages)
    return whole_layers(counts, strategy="contiguous")


def smallest_runs(loads: Sequence[float], runs: int) -> list[int]:
    """Lengths of ``runs`` consecutive runs, none empty, with the smallest largest sum.

    A cap is feasible if runs filled up to it from the left are enough; the smallest
    feasible cap is found by bisection between the mean and the sum.

    Args:
        loads: not negative.
        runs: at most ``len(loads)``.
    """
    sums = [0.0, *accumulate(loads)]
    low, high = max(sums[-1] / runs, *loads), sums[-1]
    # Rounding of sums: a run may lie a little above its cap.
    slack = 1 + len(loads) * 2.0**-_HALVINGS
    best = _filled(sums, runs, high * slack)
    assert best is not None
    for _ in range(_HALVINGS):
        cap = (low + high) / 2
        found = _filled(sums, runs, cap * slack)
        if found is None:
            low = cap
        else:
            best, high = found, cap
    return best


def _filled(sums: Sequence[float], runs: int, cap: float) -> list[int] | None:
    """Lengths of runs filled up to ``cap``, one left for each that follows; else None."""
    counts, first, items = [], 0, len(sums) - 1
    for later in range(runs - 1, -1, -1):
        end = min(bisect_right(sums, sums[first] + cap) - 1, items - later)
        if end <= first:
            return None
        counts.append(end - first)
        first = end
    return counts if first == items else None
