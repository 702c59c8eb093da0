"""PipeDream: 1F1B without a flush, each micro-batch an update of its own."""

import math

from elision.training.pipeline.scheduler import Action, Pipeline, in_order
from elision.training.pipeline.schedules.base import Schedule, alternating
from elision.training.pipeline.schedules.one_f_one_b import one_f_one_b

__all__ = ["PIPEDREAM", "PIPEDREAM_2BW", "PIPEDREAM_NO_STASH", "PIPEDREAM_REPLICATED"]

_SOURCE = "Narayanan et al., PipeDream, SOSP 2019"


def _delay(stage: int, stages: int) -> int:
    return stages - 1 - stage


def _replicated(pipeline: Pipeline) -> list[Action]:
    """Each replica of a stage runs its share of the micro-batches of all that follow."""
    counts = [
        len({lane[stage] for lane in pipeline.lanes})
        for stage in range(pipeline.stages)
    ]
    ahead = [
        math.ceil(sum(counts[stage:]) / counts[stage]) for stage in range(len(counts))
    ]
    return in_order(pipeline, alternating(pipeline, ahead))


PIPEDREAM = Schedule(
    name="pipedream",
    title="PipeDream, straight, weights stashed",
    source=_SOURCE,
    arrange=one_f_one_b,
    weights="stash",
    delay=_delay,
)

PIPEDREAM_NO_STASH = Schedule(
    name="pipedream-no-stash",
    title="PipeDream, straight, nothing stashed",
    source=_SOURCE,
    arrange=one_f_one_b,
    weights="none",
    delay=_delay,
)

PIPEDREAM_REPLICATED = Schedule(
    name="pipedream-replicated",
    title="PipeDream, stages replicated, weights stashed",
    source=_SOURCE,
    arrange=_replicated,
    partition="pipedream",
    weights="stash",
    delay=_delay,
)

PIPEDREAM_2BW = Schedule(
    name="pipedream-2bw",
    title="PipeDream-2BW, two versions of the weights",
    source="Narayanan et al., Memory-Efficient Pipeline-Parallel DNN Training, ICML 2021",
    arrange=one_f_one_b,
    weights="double",
    delay=lambda stage, stages: 1,
)
