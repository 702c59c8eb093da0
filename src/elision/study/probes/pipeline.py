"""Pipeline: what a trained network costs, layer by layer, to plan it over processors."""

import copy
from dataclasses import asdict, dataclass
from typing import Any

from elision.common.checks import integer
from elision.common.timing import with_threads
from elision.layers import restore
from elision.study.probes.base import Probe, Trained
from elision.training.pipeline.chain import chain
from elision.training.pipeline.costs import LayerCost
from elision.training.pipeline.measure import measured
from elision.training.pipeline.plan import Plan, plan
from elision.training.pipeline.schedules import find_schedule
from elision.training.pipeline.stability import block_sharpness

__all__ = ["Pipeline", "plans_of"]


@dataclass(frozen=True)
class Pipeline(Probe):
    """Time the three products of each layer, and plan the network over processors.

    The layers are those of the plain model at the trained weights, timed on one core
    (:func:`elision.training.pipeline.measure.measured`). With SGD the sharpness of each
    stage's weights is measured, too, from which the largest stable learning rate under a
    schedule's delay follows (:mod:`elision.training.pipeline.stability`).

    Attributes:
        processors: number of processors.
        schedule: name of a schedule, or several, such as ``(1f1b, layerpipe)``: keys of
            :data:`elision.training.pipeline.schedules.SCHEDULES`.
        microbatches: of a step; 0 for two per processor.
        batch: examples of a micro-batch; 0 for the workload's batch over the number of
            micro-batches.
        curvature: whether to measure the sharpness, by 30 Hessian-vector products a
            stage on one batch of the workload.

    Raises:
        ValueError: a number is out of range, or a schedule is unknown.

    Example:
        >>> Pipeline(processors=0)
        Traceback (most recent call last):
        ValueError: pipeline(processors=0): must be an integer >= 1
    """

    processors: int = 4
    schedule: str | tuple[str, ...] = ("1f1b", "zb1p", "pipedream", "layerpipe")
    microbatches: int = 0
    batch: int = 0
    curvature: bool = True

    def __post_init__(self) -> None:
        integer("pipeline", "processors", self.processors)
        integer("pipeline", "microbatches", self.microbatches, ">= 0")
        integer("pipeline", "batch", self.batch, ">= 0")
        if not self.schedules:
            raise ValueError("pipeline(schedule=()): give at least one schedule")
        for name in self.schedules:
            find_schedule(name)

    @property
    def schedules(self) -> tuple[str, ...]:
        """Names of the schedules."""
        return (self.schedule,) if isinstance(self.schedule, str) else self.schedule

    def headline(self, found: dict[str, Any]) -> str:
        """The schedule with the least bubble."""
        plans = {} if "refused" in found else plans_of(found)
        bubbles = {n: p.bubble for n, p in plans.items() if isinstance(p, Plan)}
        if not bubbles:
            return "refused"
        least = min(bubbles, key=bubbles.__getitem__)
        return f"{least}: {100 * bubbles[least]:.1f} % bubble"

    def run(self, trained: Trained) -> dict[str, Any]:
        """Costs of the layers and sharpness of the stages, or why there are none."""
        workload = trained.workload
        if workload.task_name != "classification":
            return {
                "refused": "a pipeline's network takes one tensor, and that of task "
                f"{workload.task_name!r} takes several"
            }
        count = self.microbatches or 2 * self.processors
        batch = next(
            iter(workload.train_batches(trained.dataset, seed=trained.seed, epoch=0))
        )
        images = batch[0][: self.batch or max(workload.batch_size // count, 1)]
        model = restore(copy.deepcopy(trained.model))
        try:
            pieces = chain(model, images)
            with with_threads(1):  # a processor of a plan is one core
                costs = measured(pieces, images)
        except ValueError as error:  # a network that cannot be cut
            return {"refused": str(error)}
        found: dict[str, Any] = {
            "processors": self.processors,
            "microbatches": count,
            "batch": len(images),
            "schedules": list(self.schedules),
            "layers": [asdict(cost) for cost in costs],
            "learning_rate": workload.learning_rate,
            "momentum": workload.momentum,
            "nesterov": bool(workload.nesterov),
            "sharpness": {},
        }
        if self.curvature and workload.optimizer == "sgd":
            known: dict[tuple[int, ...], float] = {}  # schedules share many a stage
            for name, made in plans_of(found).items():
                if isinstance(made, str):
                    continue
                stages = made.partition.layers[: made.partition.chain]
                for layers in stages:
                    if layers not in known:
                        known[layers] = block_sharpness(
                            pieces, layers, workload.task.loss, batch
                        )
                found["sharpness"][name] = [known[layers] for layers in stages]
        return found


def plans_of(found: dict[str, Any]) -> dict[str, Plan | str]:
    """The plans that follow from what the probe found, or why there is none, by schedule.

    Args:
        found: by :meth:`Pipeline.run`, not refused.
    """
    costs = [LayerCost(**cost) for cost in found["layers"]]
    plans: dict[str, Plan | str] = {}
    for name in found["schedules"]:
        try:
            plans[name] = plan(costs, found["processors"], name, found["microbatches"])
        except ValueError as error:  # more stages than layers, for one
            plans[name] = str(error)
    return plans
