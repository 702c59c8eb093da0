"""LayerPipe's partitions: a layer's products are tasks of their own.

Intra-layer: the forward product and the input gradient of a layer stay together, in
contiguous stages; its weight gradient may run on any processor. Inter-layer: besides, an
input gradient is cut in two halves, which may run on the processors of two layers that
follow each other: the processor of the layer after has the output's gradient already.

How LayerPipe searches is in no source that was reachable. Here, for a cap of a
processor's time, stages are filled from the first layer on, for several caps of their
own, and weight gradients, the largest first, go to their own stage if they fit, else to
the processor with the most time left; the smallest cap that works is found by bisection.
So the result is feasible, and may lie above the optimum, which
:func:`~elision.training.pipeline.partition.bounds` bounds from below.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from elision.products import Product
from elision.training.pipeline.costs import LayerCost, as_costs
from elision.training.pipeline.partition.base import Partition, Piece, bounds

__all__ = ["inter_layer", "intra_layer"]

#: Relative difference of caps at which a bisection ends.
_TOLERANCE = 1e-3

#: Caps of the stages without their weight gradients, over that of an even split, in the
#: order in which they are tried: the nearer to even, the more weight gradients stay home.
_FILLS = (1.0, 1.05, 1.1, 0.95, 1.2, 1.35, 0.85, 1.5, 2.0, math.inf)


def intra_layer(costs: Sequence[LayerCost], processors: int) -> Partition:
    """Contiguous forward products and input gradients, weight gradients anywhere.

    Args:
        costs: of the layers.
        processors: number of processors; those without a stage have weight gradients
            only, or nothing.

    Example:
        >>> chain = [LayerCost(1.0, 1.0, 1.0), LayerCost(2.0, 2.0, 2.0)]
        >>> intra_layer(chain, 2).loads(chain)
        (5.0, 4.0)
    """
    chain = as_costs(costs)
    tasks = [
        (
            (Piece(n, Product.FORWARD), Piece(n, Product.INPUT_GRAD)),
            c.forward + c.input_grad,
        )
        for n, c in enumerate(chain)
    ]
    return _smallest(chain, processors, tasks, "product", "intra-layer")


def inter_layer(costs: Sequence[LayerCost], processors: int) -> Partition:
    """As :func:`intra_layer`, and each input gradient cut in two halves.

    Args:
        costs: of the layers.
        processors: number of processors.

    Example:
        >>> chain = [LayerCost(1.0, 0.0, 1.0), LayerCost(2.0, 4.0, 2.0)]
        >>> inter_layer(chain, 2).loads(chain)
        (5.0, 5.0)
    """
    chain = as_costs(costs)
    tasks: list[_Task] = []
    for n, cost in enumerate(chain):
        half = Piece(n, Product.INPUT_GRAD, 0.5)
        tasks.append(((Piece(n, Product.FORWARD),), cost.forward))
        if cost.input_grad:
            tasks += [((half,), cost.input_grad / 2)] * 2
    return _smallest(chain, processors, tasks, "half", "inter-layer")


#: Pieces that stay together, and their duration.
_Task = tuple[tuple[Piece, ...], float]


class _Placing(NamedTuple):
    """Where tasks run.

    Attributes:
        ends: number of the task after each stage's last.
        homes: processor of each layer's weight gradient.
        period: time of the busiest processor.
    """

    ends: list[int]
    homes: dict[int, int]
    period: float


def _smallest(
    chain: tuple[LayerCost, ...],
    processors: int,
    tasks: Sequence[_Task],
    granularity: str,
    strategy: str,
) -> Partition:
    """The partition of the smallest cap that is found to work."""
    search = _Search(chain, processors, tasks)
    low = bounds(chain, processors, granularity).best
    high = sum(cost.total for cost in chain)
    best, cap = None, low
    while best is None or high - low > _TOLERANCE * low:
        found = search.placed(cap)
        if found is None:
            low = cap
        else:
            best = found if best is None else min(best, found, key=lambda p: p.period)
            high = min(cap, best.period)
        # The bound itself first, then a little above it, then halves.
        cap = (low + high) / 2 if best is not None else min(low * 1.1, high)
    return Partition(search.stages(best), strategy=strategy)


class _Search:
    """Tasks in order and weight gradients, to be placed under a cap."""

    def __init__(
        self,
        chain: tuple[LayerCost, ...],
        processors: int,
        tasks: Sequence[_Task],
    ) -> None:
        self.processors, self.tasks = processors, tasks
        self.sums = [0.0, *accumulate(duration for _, duration in tasks)]
        self.weights = sorted(
            ((cost.weight_grad, layer) for layer, cost in enumerate(chain)),
            reverse=True,
        )
        #: Task of each layer's forward product.
        self.forward = {
            piece.layer: number
            for number, (pieces, _) in enumerate(tasks)
            for piece in pieces
            if piece.product is Product.FORWARD
        }

    def placed(self, cap: float) -> _Placing | None:
        """Places with no processor above the cap; None where none was found."""
        slack = cap * (1 + 1e-12)  # sums of floats
        even = self.sums[-1] / self.processors
        tried: set[tuple[int, ...]] = set()
        for fill in _FILLS:
            ends = self._filled(min(fill * even, slack))
            if ends is None or tuple(ends) in tried:
                continue
            tried.add(tuple(ends))
            if found := self._with_weights(ends, slack):
                return found
        return None

    def _filled(self, cap: float) -> list[int] | None:
        """End of each stage, filled up to a cap from the first task on."""
        ends, first, count = [], 0, len(self.tasks)
        while first < count:
            end = bisect_right(self.sums, self.sums[first] + cap) - 1
            if end <= first or len(ends) == self.processors:
                return None
            ends.append(end)
            first = end
        return ends

    def _with_weights(self, ends: list[int], cap: float) -> _Placing | None:
        """Weight gradients placed beside the stages; None where one does not fit."""
        starts = [0, *ends[:-1]]
        loads = [self.sums[e] - self.sums[s] for s, e in zip(starts, ends, strict=True)]
        loads += [0.0] * (self.processors - len(ends))
        homes: dict[int, int] = {}
        for duration, layer in self.weights:
            place = bisect_right(ends, self.forward[layer])
            if loads[place] + duration > cap:
                place = loads.index(min(loads))
                if loads[place] + duration > cap:
                    return None
            loads[place] += duration
            homes[layer] = place
        return _Placing(ends, homes, max(loads))

    def stages(self, placing: _Placing) -> tuple[tuple[Piece, ...], ...]:
        """Pieces of each processor, two halves on one processor as a whole."""
        found: list[dict[tuple[int, Product], float]] = [
            {} for _ in range(self.processors)
        ]
        for number, (pieces, _) in enumerate(self.tasks):
            stage = found[bisect_right(placing.ends, number)]
            for layer, product, share in pieces:
                stage[layer, product] = stage.get((layer, product), 0.0) + share
        for layer, place in sorted(placing.homes.items()):
            found[place][layer, Product.WEIGHT_GRAD] = 1.0
        return tuple(
            tuple(Piece(*key, share) for key, share in stage.items()) for stage in found
        )
