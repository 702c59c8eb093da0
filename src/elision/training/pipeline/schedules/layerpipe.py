"""LayerPipe: the two gradients of a layer are two tasks, which may run on two processors.

Every processor does its share once a tick, each stage on another micro-batch: the
round trip of a stage with ``S`` stages after it takes ``2S`` ticks, and each tick is an
update.
"""

from functools import partial

from elision.training.pipeline.scheduler import in_ticks
from elision.training.pipeline.schedules.base import Schedule

__all__ = ["LAYERPIPE", "LAYERPIPE2", "LAYERPIPE_INTRA"]

_SOURCE = "Unnikrishnan, Parhi, LayerPipe, ICCAD 2021, arXiv 2108.06629"

_schedule = partial(
    Schedule,
    arrange=in_ticks,
    splits=True,
    delay=lambda stage, stages: 2 * (stages - 1 - stage),
)

LAYERPIPE_INTRA = _schedule(
    name="layerpipe-intra",
    title="LayerPipe, intra-layer",
    source=_SOURCE,
    partition="intra",
    weights="stash",
)

LAYERPIPE = _schedule(
    name="layerpipe",
    title="LayerPipe, inter-layer",
    source=_SOURCE,
    partition="inter",
    weights="stash",
)

LAYERPIPE2 = _schedule(
    name="layerpipe2",
    title="LayerPipe2, moving average of updates",
    source="Unnikrishnan, Parhi, LayerPipe2, Asilomar 2025, arXiv 2512.08160",
    partition="inter",
    weights="average",
)
