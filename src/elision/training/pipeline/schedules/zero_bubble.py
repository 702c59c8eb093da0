"""Zero bubble on one stage per processor: weight gradients fill the gaps of 1F1B."""

from elision.training.pipeline.scheduler import Action, Pipeline, in_order
from elision.training.pipeline.schedules.base import Schedule, alternating

__all__ = ["ZB1P", "ZB2P"]

_SOURCE = "Qi et al., Zero Bubble Pipeline Parallelism, ICLR 2024, arXiv 2401.10241"


def _zb1p(pipeline: Pipeline) -> list[Action]:
    """Stage ``s`` keeps ``n`` activations: ``n - s`` under way, ``s`` that wait for ``W``."""
    stages = range(pipeline.stages)
    ahead = [pipeline.stages - s for s in stages]
    return in_order(pipeline, alternating(pipeline, ahead, list(stages)))


def _zb2p(pipeline: Pipeline) -> list[Action]:
    """Stage ``s`` keeps ``2n - 1``: twice as many under way, so that no stage waits."""
    stages = range(pipeline.stages)
    ahead = [2 * (pipeline.stages - s) - 1 for s in stages]
    return in_order(pipeline, alternating(pipeline, ahead, [2 * s for s in stages]))


ZB1P = Schedule(name="zb1p", title="ZB1P", source=_SOURCE, arrange=_zb1p, splits=True)
ZB2P = Schedule(name="zb2p", title="ZB2P", source=_SOURCE, arrange=_zb2p, splits=True)
