"""Interleaved 1F1B: each processor has several short stages, round and round."""

from elision.training.pipeline.scheduler import Action, Operation, Pipeline, in_order
from elision.training.pipeline.schedules.base import Schedule

__all__ = ["INTERLEAVED"]

#: Stages per processor.
_CHUNKS = 2


def _arrange(pipeline: Pipeline) -> list[Action]:
    """Groups of as many micro-batches as there are processors pass stage by stage.

    Processor ``p`` of ``P``, with ``v`` stages, runs ``2(P - 1 - p) + (v - 1)P``
    forward products ahead and then one more, forward and back by turns.
    """
    count = pipeline.processors
    chunks = pipeline.stages // count
    if pipeline.microbatches % count:
        raise ValueError(
            f"interleaved 1F1B passes groups of {count} micro-batches, one per "
            f"processor, and {pipeline.microbatches} is not a multiple of {count}"
        )
    groups = range(0, pipeline.microbatches, count)
    orders = []
    for processor in range(count):
        forward, back = (
            [
                Operation(kind, chunk * count + processor, first + i)
                for first in groups
                for chunk in order
                for i in range(count)
            ]
            for kind, order in (("F", range(chunks)), ("B", range(chunks)[::-1]))
        )
        ahead = min(2 * (count - 1 - processor) + (chunks - 1) * count, len(forward))
        order = forward[:ahead]
        for ready, gradients in zip(forward[ahead:], back, strict=False):
            order += [ready, gradients]
        orders.append(order + back[len(forward) - ahead :])
    return in_order(pipeline, orders)


INTERLEAVED = Schedule(
    name="interleaved",
    title="interleaved 1F1B",
    source="Narayanan et al., Efficient Large-Scale Language Model Training on GPU "
    "Clusters Using Megatron-LM, SC 2021",
    arrange=_arrange,
    chunks=_CHUNKS,
    route="loop",
)
