"""Plan: the layers of a network on processors, under a schedule, in time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from elision.common.checks import integer, number
from elision.products import Product
from elision.training.pipeline.costs import LayerCost, as_costs
from elision.training.pipeline.partition import Partition, contiguous
from elision.training.pipeline.scheduler import Action, Pipeline
from elision.training.pipeline.schedules import Schedule, find_schedule
from elision.training.pipeline.schedules.base import route

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """Who computes which product of which micro-batch when.

    Attributes:
        costs: of the layers, for one micro-batch.
        schedule: the schedule.
        partition: pieces of the layers in each stage.
        pipeline: stages, their durations and their processors.
        actions: all operations in time, by start.

    Example:
        >>> even = [LayerCost(1.0, 1.0, 1.0) for _ in range(4)]
        >>> made = plan(even, processors=4, schedule="1f1b", microbatches=8)
        >>> made.makespan, round(made.bubble, 3), made.peak_activations
        (33.0, 0.273, (4, 3, 2, 1))
    """

    costs: tuple[LayerCost, ...] = field(repr=False)
    schedule: Schedule
    partition: Partition = field(repr=False)
    pipeline: Pipeline = field(repr=False)
    actions: tuple[Action, ...] = field(repr=False)

    @property
    def microbatches(self) -> int:
        """Number of micro-batches in :attr:`actions`."""
        return self.pipeline.microbatches

    @property
    def processors(self) -> int:
        """Number of processors."""
        return self.pipeline.processors

    @property
    def unit(self) -> str:
        """Unit of every duration: ``"s"`` or ``"cycles"``."""
        return self.costs[0].unit

    @cached_property
    def by_processor(self) -> tuple[tuple[Action, ...], ...]:
        """Actions of each processor, in time."""
        found: list[list[Action]] = [[] for _ in range(self.processors)]
        for action in self.actions:
            found[action.processor].append(action)
        return tuple(map(tuple, found))

    @cached_property
    def makespan(self) -> float:
        """Time from the first start to the last end, filling and draining included."""
        return max(action.end for action in self.actions)

    @cached_property
    def period(self) -> float:
        """Time per micro-batch when the work goes on and on.

        Of a synchronous schedule: the longest time that any processor is held by a step,
        over the step's micro-batches; the next step begins on a processor when this one
        has ended on it. Of any other: the time between micro-batches once the pipeline is
        full.
        """
        if self.schedule.synchronous:
            held = (max(a.end for a in own) - own[0].start for own in self._working)
            return max(held) / self.microbatches
        return _steady_period(self.schedule, self.pipeline)

    @property
    def _working(self) -> list[tuple[Action, ...]]:
        return [own for own in self.by_processor if own]

    @cached_property
    def bubble(self) -> float:
        """Share of the processors' time that is idle when the work goes on and on.

        Idle time of processors with less work than the slowest counts, too.
        """
        busy = sum(action.end - action.start for action in self.actions)
        return 1 - busy / self.microbatches / (self.processors * self.period)

    @cached_property
    def peak_activations(self) -> tuple[int, ...]:
        """Micro-batches whose activations each stage keeps at the same time, at most."""
        peaks = [0] * self.pipeline.stages
        kept: dict[tuple[int, int], int] = {}
        for _, change, stage, lane in self._keeping():
            kept[stage, lane] = kept.get((stage, lane), 0) + change
            peaks[stage] = max(peaks[stage], kept[stage, lane])
        return tuple(peaks)

    @property
    def weight_versions(self) -> tuple[int, ...]:
        """Weight versions that each stage keeps, a moving average included."""
        return tuple(map(self.schedule.versions, self.peak_activations))

    @property
    def delays(self) -> tuple[int, ...]:
        """Updates between the weights that a gradient saw and those that it changes."""
        n = self.pipeline.stages
        return tuple(self.schedule.delay(stage, n) for stage in range(n))

    def _keeping(self) -> list[tuple[float, int, int, int]]:
        """Starts and ends of keeping: (time, +1 or -1, stage, processor), in order."""
        ends: dict[tuple[int, int], float] = {}
        starts: list[Action] = []
        for action in self.actions:
            if action.kind == "F":
                starts.append(action)
            if action.kind in ("B", "W"):
                key = action.stage, action.microbatch
                ends[key] = max(ends.get(key, 0.0), action.end)
        events = []
        for action in starts:
            key = action.stage, action.microbatch
            events.append((action.start, 1, action.stage, action.processor))
            events.append((ends[key], -1, action.stage, action.processor))
        # What ends at a time is gone when something starts at that time.
        return sorted(events)


def plan(
    costs: Iterable[LayerCost],
    processors: int,
    schedule: str | Schedule = "1f1b",
    microbatches: int | None = None,
    *,
    partition: Partition | None = None,
    bandwidth: float = math.inf,
) -> Plan:
    """Plan a pipeline.

    Args:
        costs: of each layer for one micro-batch, in the order in which they run.
        processors: number of processors.
        schedule: name of a schedule, or a schedule.
        microbatches: micro-batches of a step, or of the stretch that is planned where
            every micro-batch is a step; default: two per processor.
        partition: stages; default: by the schedule's own partitioner.
        bandwidth: bytes per unit of time between two processors; infinite: what is sent
            takes no time.

    Returns:
        The plan.

    Raises:
        ValueError: an unknown schedule, more stages than layers, a stage without
            parameters where other layers have some, or a number out of range.
        DeadlockError: the schedule's operations wait for one another.
    """
    chain = as_costs(costs)
    chosen = schedule if isinstance(schedule, Schedule) else find_schedule(schedule)
    count = integer("plan", "processors", processors)
    batches = integer(
        "plan", "microbatches", 2 * count if microbatches is None else microbatches
    )
    number("plan", "bandwidth", bandwidth, "(0, inf]")
    stages = partition or _partitioned(chain, chosen, count, bandwidth)
    _check_parameters(chain, stages)
    pipeline = _pipeline(chain, stages, chosen, count, batches, bandwidth)
    actions = tuple(chosen.arrange(pipeline))
    return Plan(chain, chosen, stages, pipeline, actions)


def _partitioned(
    chain: tuple[LayerCost, ...], schedule: Schedule, processors: int, bandwidth: float
) -> Partition:
    del bandwidth
    return contiguous(chain, processors * schedule.chunks)


def _check_parameters(chain: tuple[LayerCost, ...], partition: Partition) -> None:
    """Raise ValueError if a stage has nothing to train, where sizes are known."""
    if not any(cost.parameter_bytes for cost in chain):
        return
    for number_, stage in enumerate(partition.layers):
        if stage and not any(chain[layer].parameter_bytes for layer in stage):
            names = ", ".join(chain[layer].name or str(layer) for layer in stage)
            raise ValueError(
                f"stage {number_} (layers {names}) has no parameters to train: fuse these "
                "layers with a neighbour, or give fewer processors"
            )


def _pipeline(
    chain: tuple[LayerCost, ...],
    partition: Partition,
    schedule: Schedule,
    processors: int,
    microbatches: int,
    bandwidth: float,
) -> Pipeline:
    """Durations and processors of the stages of a partition."""
    durations = {
        product: tuple(
            sum(
                chain[piece.layer].of(product) * piece.share
                for piece in stage
                if piece.product is product
            )
            for stage in partition.stages
        )
        for product in Product
    }
    transfer = ()
    if bandwidth < math.inf:
        sent = [chain[stage[-1]].sent_bytes for stage in partition.layers]
        transfer = tuple(size / bandwidth for size in sent[:-1])
    return Pipeline(
        microbatches,
        durations[Product.FORWARD],
        durations[Product.INPUT_GRAD],
        durations[Product.WEIGHT_GRAD],
        route(schedule.route, processors, schedule.chunks),
        schedule.splits,
        transfer,
    )


def _steady_period(schedule: Schedule, pipeline: Pipeline) -> float:
    """Time between micro-batches in the middle of a long stream of them."""
    lanes = len(pipeline.lanes)
    # Rounds that fill the pipeline, and rounds over which the time is taken.
    filling = lanes * math.ceil(4 * pipeline.stages / lanes)
    measured = lanes * math.ceil(4 * pipeline.stages / lanes)
    stream = replace(pipeline, microbatches=filling + measured + 1)
    starts = {
        a.microbatch: a.start
        for a in schedule.arrange(stream)
        if a.kind == "F" and a.stage == 0
    }
    return (starts[filling + measured] - starts[filling]) / measured
