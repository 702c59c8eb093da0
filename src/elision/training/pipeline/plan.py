"""Plan: the layers of a network on processors, under a schedule, in time."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor, nn

from elision.accelerators.design.schedule import Slice
from elision.common.checks import integer, number
from elision.common.units import counted
from elision.report.pipeline_figure import Box, Panel
from elision.report.timeline import save_chrome_trace
from elision.training.pipeline.build import pipeline_of
from elision.training.pipeline.costs import LayerCost, as_costs
from elision.training.pipeline.measure import measured
from elision.training.pipeline.partition import (
    Partition,
    contiguous,
    inter_layer,
    intra_layer,
    pipedream,
)
from elision.training.pipeline.scheduler import Action, Pipeline, list_schedule
from elision.training.pipeline.schedules import Schedule, find_schedule
from elision.training.pipeline.traffic import traffic
from elision.training.pipeline.weights import MakeOptimizer

if TYPE_CHECKING:
    from elision.training.pipeline.runtime import PipelineRun

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

    def run(
        self,
        model: nn.Module | Sequence[nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        make_optimizer: MakeOptimizer,
        batches: Sequence[tuple[Tensor, Tensor]],
        *,
        weights: str | None = None,
        timeout: float | None = None,
    ) -> "PipelineRun":
        """Train a model by this plan: :func:`elision.training.pipeline.runtime.run`."""
        # Imported here: torch's pipelining is slow to import, and planning needs none.
        from elision.training.pipeline.runtime import run

        return run(
            self, model, loss, make_optimizer, batches, weights=weights, timeout=timeout
        )

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

    @cached_property
    def peak_kept(self) -> tuple[int, ...]:
        """Activations that each processor keeps at the same time, at most.

        Each is that of one stage and micro-batch.
        """
        kept, peaks = [0] * self.processors, [0] * self.processors
        for _, change, _, processor in self._keeping():
            kept[processor] += change
            peaks[processor] = max(peaks[processor], kept[processor])
        return tuple(peaks)

    @property
    def weight_versions(self) -> tuple[int, ...]:
        """Weight versions that each stage keeps, a moving average included."""
        return tuple(map(self.schedule.versions, self.peak_activations))

    @property
    def delays(self) -> tuple[int, ...]:
        """Updates between the weights that a gradient saw and those that it changes.

        A weight gradient on another processor than its stage's comes one tick later.
        """
        n = self.pipeline.stages
        parts = self.pipeline.parts or ((),) * n
        return tuple(
            self.schedule.delay(s, n) + any(place != s for place, _ in parts[s])
            for s in range(n)
        )

    @cached_property
    def memory_bytes(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """Bytes over time on each processor: (time, bytes from then on), in order.

        Activations kept, and the weights of its stages in as many versions as they keep.
        """
        held = [self._weight_bytes(p) for p in range(self.processors)]
        series = [[(0.0, bytes_)] for bytes_ in held]
        sizes = self._kept_bytes
        for time, change, stage, processor in self._keeping():
            held[processor] += change * sizes[stage]
            if series[processor][-1][0] == time:
                series[processor].pop()
            series[processor].append((time, held[processor]))
        return tuple(map(tuple, series))

    @property
    def peak_bytes(self) -> tuple[float, ...]:
        """Largest of :attr:`memory_bytes` on each processor."""
        return tuple(max(size for _, size in own) for own in self.memory_bytes)

    @property
    def _kept_bytes(self) -> tuple[float, ...]:
        """Activations of one micro-batch in each stage."""
        return tuple(
            sum(self.costs[layer].kept_bytes for layer in layers)
            for layers in self.partition.layers
        )

    def _weight_bytes(self, processor: int) -> float:
        """Weights on a processor, in the versions that its stages keep."""
        stages = {
            stage
            for lane in self.pipeline.lanes
            for stage, place in enumerate(lane)
            if place == processor
        }
        return sum(
            self.weight_versions[stage] * self.costs[layer].parameter_bytes
            for stage in stages
            for layer in self.partition.layers[stage]
        )

    @cached_property
    def sent_bytes(self) -> float:
        """Bytes that processors send one another per micro-batch.

        What is sent is listed in :mod:`~elision.training.pipeline.traffic`.
        """
        return sum(traffic(self.costs, self.partition, self.pipeline).values())

    def timeline(self, path: str | Path) -> None:
        """Write the actions as a Chrome trace, which ui.perfetto.dev opens.

        A track for each processor; one cycle is written as a microsecond.

        Args:
            path: the file; gzipped if its name ends in ``.gz``.

        Raises:
            OSError: the file cannot be written.
        """
        scale = 1e6 if self.unit == "s" else 1.0
        slices = []
        for own in self.by_processor:
            end = 0.0
            for a in own:
                # Sums of floats: what follows at once may begin a little before.
                start = max(a.start * scale, end)
                end = max(a.end * scale, start)
                name = f"{a.kind}{a.microbatch} of stage {a.stage}"
                slices.append(Slice(f"processor {a.processor}", name, start, end))
        unit = "times in us" if self.unit == "s" else "1 us = 1 cycle"
        title = f"{self.schedule.title}, {self.microbatches} micro-batches"
        save_chrome_trace({title: slices}, Path(path), unit)

    def panel(self) -> Panel:
        """The plan as :func:`~elision.report.pipeline_figure.pipeline_svg` draws it."""
        first = {p: min(a.stage for a in own) for p, own in self._stages_by_processor()}
        boxes = [
            Box(
                a.processor,
                a.start,
                a.end,
                a.kind,
                str(a.microbatch),
                a.stage != first[a.processor],
            )
            for a in self.actions
            if a.end > a.start
        ]
        title = (
            f"{self.schedule.title}: makespan {counted(self.makespan, self.unit)}, "
            f"bubble {100 * self.bubble:.1f} %"
        )
        return Panel(title, self.processors, boxes, self.memory_bytes, self.unit)

    def _stages_by_processor(self) -> Iterator[tuple[int, tuple[Action, ...]]]:
        """Processors that have something to do, and their actions."""
        return ((own[0].processor, own) for own in self.by_processor if own)

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


@overload
def plan(
    costs: Iterable[LayerCost],
    processors: int,
    schedule: str | Schedule = ...,
    microbatches: int | None = ...,
    *,
    partition: Partition | None = ...,
    bandwidth: float = ...,
    memory_bytes: float = ...,
    max_activations: int | None = ...,
) -> Plan: ...


@overload
def plan(
    costs: nn.Module,
    batch: Tensor,
    processors: int,
    schedule: str | Schedule = ...,
    microbatches: int | None = ...,
    *,
    partition: Partition | None = ...,
    bandwidth: float = ...,
    memory_bytes: float = ...,
    max_activations: int | None = ...,
) -> Plan: ...


def plan(costs: Any, *given: Any, **named: Any) -> Plan:
    """Plan a pipeline from the costs of its layers, or from a network, measured here.

    ``plan(costs, processors, schedule, microbatches)``, or
    ``plan(network, batch, processors, schedule, microbatches)``.

    Args:
        costs: of each layer for one micro-batch, in the order in which they run; or a
            network, which :func:`~elision.training.pipeline.measure.measured` times on
            ``batch``, the inputs of one micro-batch.
        *given: as above, in this order.
        **named: the same by name, and what follows.
        processors: number of processors.
        schedule: name of a schedule, or a schedule.
        microbatches: micro-batches of a step, or of the stretch that is planned where
            every micro-batch is a step; default: two per processor.
        partition: stages; default: by the schedule's own partitioner.
        bandwidth: bytes per unit of time between two processors; infinite: what is sent
            takes no time.
        memory_bytes: of each processor; PipeDream's planner keeps within it.
        max_activations: cap of the activations that a processor keeps, each of one stage
            and micro-batch; a list schedule then takes the place of the schedule's own
            order. Of synchronous schedules.

    Returns:
        The plan.

    Raises:
        ValueError: an unknown schedule, more stages than layers, a stage without
            parameters where other layers have some, or a number out of range.
        DeadlockError: the schedule's operations wait for one another.
    """
    if isinstance(costs, nn.Module):
        if "batch" in named:
            given = (named.pop("batch"), *given)
        if not given or not isinstance(given[0], Tensor):
            raise ValueError(
                "plan(network, batch, processors=...): the batch is missing"
            )
        costs, given = measured(costs, given[0]), given[1:]
    return _plan(costs, *given, **named)


def _plan(
    costs: Iterable[LayerCost],
    processors: int,
    schedule: str | Schedule = "1f1b",
    microbatches: int | None = None,
    *,
    partition: Partition | None = None,
    bandwidth: float = math.inf,
    memory_bytes: float = math.inf,
    max_activations: int | None = None,
) -> Plan:
    """:func:`plan` of costs."""
    chain = as_costs(costs)
    chosen = schedule if isinstance(schedule, Schedule) else find_schedule(schedule)
    count = integer("plan", "processors", processors)
    batches = integer(
        "plan", "microbatches", 2 * count if microbatches is None else microbatches
    )
    number("plan", "bandwidth", bandwidth, "(0, inf]")
    number("plan", "memory_bytes", memory_bytes, "(0, inf]")
    if memory_bytes < math.inf and chosen.partition != "pipedream":
        raise ValueError(
            f"plan(memory_bytes={memory_bytes:g}): schedule {chosen.name!r} is not "
            "partitioned by memory; 'pipedream-replicated' is"
        )
    stages = partition or _partitioned(
        chain, chosen.partition, count * chosen.chunks, bandwidth, memory_bytes
    )
    _check_partition(stages, chosen, count, len(chain))
    _check_parameters(chain, stages)
    pipeline = pipeline_of(chain, stages, chosen, count, batches, bandwidth)
    if max_activations is None:
        actions = chosen.arrange(pipeline)
    else:
        cap = integer("plan", "max_activations", max_activations)
        if not chosen.synchronous:
            raise ValueError(
                f"plan(max_activations={cap}): {chosen.name!r} is not synchronous, and its "
                "delays follow from its order"
            )
        actions = list_schedule(pipeline, [cap] * count)
    return Plan(chain, chosen, stages, pipeline, tuple(actions))


def _check_partition(
    partition: Partition, schedule: Schedule, processors: int, layers: int
) -> None:
    """Raise ValueError unless a partition fits the schedule and the layers."""
    expected = processors * schedule.chunks
    if partition.processors != expected:
        raise ValueError(
            f"schedule {schedule.name!r} on {processors} processors needs {expected} stages, "
            f"replicas counted, and the partition has {partition.processors}"
        )
    if sorted(layer for stage in partition.layers for layer in stage) != list(
        range(layers)
    ):
        raise ValueError(
            f"the partition must compute each of the {layers} layers once; its stages have "
            f"{partition.layers}"
        )
    tasks = any(piece.share < 1 for stage in partition.stages for piece in stage)
    if (tasks or partition.chain < len(partition.stages)) and not schedule.splits:
        raise ValueError(
            f"schedule {schedule.name!r} keeps a layer's gradients together, and the "
            f"partition is {partition.strategy!r}"
        )


@lru_cache(maxsize=64)
def _partitioned(
    chain: tuple[LayerCost, ...],
    strategy: str,
    stages: int,
    bandwidth: float,
    memory_bytes: float,
) -> Partition:
    """The stages that a partitioner gives; schedules that share one share its result."""
    if strategy == "pipedream":
        return pipedream(chain, stages, bandwidth=bandwidth, memory_bytes=memory_bytes)
    partitioner = {"intra": intra_layer, "inter": inter_layer}.get(strategy, contiguous)
    return partitioner(chain, stages)


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
