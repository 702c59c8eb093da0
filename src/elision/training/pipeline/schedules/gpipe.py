"""GPipe: all forward products, then all gradients."""

from elision.training.pipeline.scheduler import Action, Operation, Pipeline, in_order
from elision.training.pipeline.schedules.base import Schedule

__all__ = ["GPIPE"]


def _arrange(pipeline: Pipeline) -> list[Action]:
    batches = range(pipeline.microbatches)
    return in_order(
        pipeline,
        [
            [Operation(kind, stage, i) for kind in "FB" for i in batches]
            for stage in range(pipeline.stages)
        ],
    )


GPIPE = Schedule(
    name="gpipe",
    title="GPipe",
    source="Huang et al., GPipe: Efficient Training of Giant Neural Networks using "
    "Pipeline Parallelism, NeurIPS 2019",
    arrange=_arrange,
)
