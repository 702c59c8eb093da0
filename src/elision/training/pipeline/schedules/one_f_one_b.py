"""1F1B with a flush: forward and back by turns, so that few activations are kept."""

from elision.training.pipeline.scheduler import Action, Pipeline, in_order
from elision.training.pipeline.schedules.base import Schedule, alternating

__all__ = ["ONE_F_ONE_B", "one_f_one_b"]


def one_f_one_b(pipeline: Pipeline) -> list[Action]:
    """Stage ``s`` of ``n`` runs ``n - s`` forward products ahead."""
    n = pipeline.stages
    return in_order(pipeline, alternating(pipeline, [n - s for s in range(n)]))


ONE_F_ONE_B = Schedule(
    name="1f1b",
    title="1F1B",
    source="Fan et al., DAPPLE, PPoPP 2021; the order is PipeDream's, SOSP 2019",
    arrange=one_f_one_b,
)
