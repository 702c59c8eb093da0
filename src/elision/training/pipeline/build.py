"""The pipeline that a partition and a schedule make: durations, processors, transfers."""

import math
from itertools import accumulate

from elision.products import Product
from elision.training.pipeline.costs import LayerCost
from elision.training.pipeline.partition import Partition
from elision.training.pipeline.scheduler import Pipeline
from elision.training.pipeline.schedules import Schedule
from elision.training.pipeline.schedules.base import route

__all__ = ["pipeline_of"]


def pipeline_of(
    chain: tuple[LayerCost, ...],
    partition: Partition,
    schedule: Schedule,
    processors: int,
    microbatches: int,
    bandwidth: float,
) -> Pipeline:
    """Durations and processors of the stages of a partition.

    Args:
        chain: costs of the layers.
        partition: pieces of the layers in each stage; the stages of the chain come first.
        schedule: which says how stages lie on processors.
        processors: number of processors.
        microbatches: number of micro-batches.
        bandwidth: bytes per unit of time between two processors.
    """
    durations = {product: [0.0] * partition.chain for product in Product}
    for stage, pieces in enumerate(partition.stages[: partition.chain]):
        for layer, product, share in pieces:
            durations[product][stage] += share * chain[layer].of(product)
    transfer = ()
    if bandwidth < math.inf:
        transfer = tuple(
            chain[layer].sent_bytes / bandwidth for layer in partition.boundaries
        )
    return Pipeline(
        microbatches,
        tuple(durations[Product.FORWARD]),
        tuple(durations[Product.INPUT_GRAD]),
        tuple(durations[Product.WEIGHT_GRAD]),
        _lanes(partition, schedule, processors),
        schedule.splits,
        transfer,
        parts=_parts(chain, partition),
    )


def _lanes(
    partition: Partition, schedule: Schedule, processors: int
) -> tuple[tuple[int, ...], ...]:
    """Processor of each stage for each micro-batch, replicas of a stage by turns."""
    if max(partition.replicas) == 1:
        lanes = route(schedule.route, processors, schedule.chunks)
        return tuple(lane[: partition.chain] for lane in lanes)
    firsts = [0, *accumulate(partition.replicas)]
    return tuple(
        tuple(
            first + lane % count
            for first, count in zip(firsts, partition.replicas, strict=False)
        )
        for lane in range(math.lcm(*partition.replicas))
    )


def _parts(
    chain: tuple[LayerCost, ...], partition: Partition
) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Processor and duration of each stage's weight gradients; none if all are at home."""
    homes = {
        layer: stage
        for stage, layers in enumerate(partition.layers)
        for layer in layers
    }
    found: list[dict[int, float]] = [{} for _ in range(partition.chain)]
    apart = False
    for processor, pieces in enumerate(partition.stages):
        for layer, product, share in pieces:
            if product is Product.WEIGHT_GRAD:
                part = found[homes[layer]]
                duration = share * chain[layer].weight_grad
                part[processor] = part.get(processor, 0.0) + duration
                apart |= processor != homes[layer]
    if not apart:
        return ()
    return tuple(
        tuple(part.items()) or ((stage, 0.0),) for stage, part in enumerate(found)
    )
