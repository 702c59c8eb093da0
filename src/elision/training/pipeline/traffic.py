"""Traffic: what processors send one another, per micro-batch.

Activations and their gradients go between stages. A weight gradient apart from its stage
needs the layer's input and its output's gradient there, and goes back. A half of an input
gradient apart needs its half of the weights there, and goes back. The replicas of a stage
sum their weight gradients around a ring, ``2(r-1)/r`` of their bytes for each of ``r``
replicas once in ``r`` micro-batches.
"""

from elision.products import Product
from elision.training.pipeline.costs import LayerCost
from elision.training.pipeline.partition import Partition
from elision.training.pipeline.scheduler import Pipeline

__all__ = ["KINDS", "traffic"]

#: What is sent.
KINDS = ("activations", "weight gradients", "halves", "replicas")


def traffic(
    costs: tuple[LayerCost, ...], partition: Partition, pipeline: Pipeline
) -> dict[str, float]:
    """Bytes per micro-batch that processors send one another, by what they are.

    Args:
        costs: of the layers.
        partition: pieces of the layers in each stage.
        pipeline: processors of the stages.

    Returns:
        Bytes by :data:`KINDS`.
    """
    found: dict[str, float] = {}
    found |= dict.fromkeys(KINDS, 0.0)
    lanes = pipeline.lanes
    for stage, layer in enumerate(partition.boundaries):
        crossing = sum(lane[stage] != lane[stage + 1] for lane in lanes) / len(lanes)
        found["activations"] += 2 * crossing * costs[layer].sent_bytes
    homes = {
        layer: stage
        for stage, layers in enumerate(partition.layers)
        for layer in layers
    }
    for processor, pieces in enumerate(partition.stages):
        for layer, product, share in pieces:
            if homes[layer] == processor or product is Product.FORWARD:
                continue
            cost = costs[layer]
            entering = costs[layer - 1].sent_bytes if layer else 0.0
            if product is Product.WEIGHT_GRAD:
                sent = entering + cost.sent_bytes + cost.parameter_bytes
                found["weight gradients"] += share * sent
            else:
                found["halves"] += share * (cost.parameter_bytes + entering)
    for layers, count in zip(partition.layers, partition.replicas, strict=False):
        ring = 2 * (count - 1) / count
        found["replicas"] += ring * sum(costs[n].parameter_bytes for n in layers)
    return found
