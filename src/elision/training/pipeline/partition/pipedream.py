"""PipeDream's planner: stages and how often each is replicated, by dynamic programming.

With ``A[j][m]`` the time per micro-batch of the first ``j`` layers on ``m`` processors::

    A[j][m] = min over k, r of max(A[k][m - r], 2 sent[k-1] / (bandwidth r),
                                   (T(k..j) + 4 (r - 1) parameters(k..j) / (bandwidth r)) / r)

the slower of the layers before, of what crosses the boundary there and back, and of the
last stage, whose ``r`` replicas share their gradients. A stage keeps the activations and
the weights of every micro-batch under way: as many per replica as there are processors
from it on, over its replicas.

Narayanan et al., PipeDream, SOSP 2019; the form of the terms is that of the published
planner. That program leaves the boundary's term out unless activations are compressed;
here the bandwidth decides, and is infinite by default.
"""

import math
from collections.abc import Sequence

import numpy as np

from elision.common.checks import number
from elision.training.pipeline.costs import LayerCost, as_costs
from elision.training.pipeline.partition.base import Partition, whole_layers

__all__ = ["pipedream"]

#: Times that a replica sends or receives its share of the parameters' bytes, as the
#: published planner counts.
_SHARED = 4


def pipedream(
    costs: Sequence[LayerCost],
    processors: int,
    *,
    bandwidth: float = math.inf,
    memory_bytes: float = math.inf,
    replicate: bool = True,
) -> Partition:
    """Contiguous stages, each on one or more processors, with the smallest period.

    Args:
        costs: of the layers.
        processors: number of processors; all are used.
        bandwidth: bytes per unit of time between two processors.
        memory_bytes: of each processor, for activations and weights under way.
        replicate: whether a stage may have several processors.

    Raises:
        ValueError: there are more stages than layers, or no partition fits the memory.

    Example:
        >>> chain = [LayerCost(2.0, 2.0, 2.0), LayerCost(1.0, 1.0, 1.0)]
        >>> found = pipedream(chain, 3)
        >>> found.replicas, found.period(chain)
        ((2, 1), 3.0)
    """
    chain = as_costs(costs)
    number("pipedream", "bandwidth", bandwidth, "(0, inf]")
    number("pipedream", "memory_bytes", memory_bytes, "(0, inf]")
    if processors > len(chain) and not replicate:
        raise ValueError(
            f"{processors} stages need at least {processors} layers, and there are "
            f"{len(chain)}"
        )
    time = _between([cost.total for cost in chain])
    parameters = _between([cost.parameter_bytes for cost in chain])
    kept = _between([cost.kept_bytes for cost in chain]) + parameters
    sent = np.array([0.0, *(cost.sent_bytes for cost in chain)]) / bandwidth
    sent[-1] = 0.0  # no stage follows the last layer
    layers = len(chain)
    no_layer = np.tril_indices(layers + 1)
    best = np.full((processors + 1, layers + 1), np.inf)
    best[0, 0] = 0.0
    came: dict[tuple[int, int], tuple[int, int]] = {}
    stages = []
    for replicas in range(1, processors + 1 if replicate else 2):
        shared = _SHARED * (replicas - 1) / replicas * parameters / bandwidth
        stage = np.maximum((time + shared) / replicas, 2 * sent[:, None] / replicas)
        stage[no_layer] = np.inf
        stages.append(stage)
    for used in range(1, processors + 1):
        for replicas, stage in enumerate(stages[:used], start=1):
            period = np.maximum(best[used - replicas][:, None], stage)
            if memory_bytes < math.inf:
                under_way = math.ceil((processors - used + replicas) / replicas)
                period[under_way * kept > memory_bytes] = np.inf
            split = period.argmin(axis=0)
            found = period[split, range(layers + 1)]
            for end in np.flatnonzero(found < best[used]).tolist():
                best[used, end] = found[end]
                came[used, end] = int(split[end]), replicas
    if not math.isfinite(best[processors, layers]):
        raise ValueError(
            f"no partition of {layers} layers on {processors} processors fits "
            f"memory_bytes={memory_bytes:g}"
        )
    counts, replicated, used, end = [], [], processors, layers
    while end:
        first, replicas = came[used, end]
        counts.append(end - first)
        replicated.append(replicas)
        used, end = used - replicas, first
    strategy = "pipedream" if replicate else "pipedream, straight"
    return whole_layers(counts[::-1], replicated[::-1], strategy)


def _between(values: Sequence[float]) -> np.ndarray:
    """Sum of the values from ``k`` up to ``j``, as ``[k, j]``."""
    sums = np.array([0.0, *np.cumsum(values)])
    return sums[None, :] - sums[:, None]
