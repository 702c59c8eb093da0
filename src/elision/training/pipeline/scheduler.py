"""Scheduler: who computes what when, from a fixed order or by a list schedule.

A pipeline is a chain of stages through which micro-batches pass forward and back. Its
operations are those of torch's pipelining: ``F`` forward, ``B`` both gradients, ``I`` input
gradient, ``W`` weight gradient. ``F`` of a stage needs ``F`` of the stage before; ``B`` and
``I`` need ``F`` of their own stage and ``B`` or ``I`` of the stage after; ``W`` needs ``I``
of its own stage.

Three ways to arrange them, behind one result, the actions in time:

- :func:`in_order`: each processor keeps a given order and waits where it must;
- :func:`list_schedule`: each processor takes the most urgent operation that is ready, under a
  cap of activations kept;
- :func:`in_ticks`: all processors start their share of work together, tick by tick, and
  results pass on between two ticks, as in a systolic array.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from elision.products import Product

__all__ = [
    "KINDS",
    "Action",
    "DeadlockError",
    "Operation",
    "Pipeline",
    "in_order",
    "in_ticks",
    "list_schedule",
]

#: Products of each kind of operation.
KINDS: dict[str, tuple[Product, ...]] = {
    "F": (Product.FORWARD,),
    "B": (Product.INPUT_GRAD, Product.WEIGHT_GRAD),
    "I": (Product.INPUT_GRAD,),
    "W": (Product.WEIGHT_GRAD,),
}


class Operation(NamedTuple):
    """One step of one micro-batch in one stage.

    Attributes:
        kind: key of :data:`KINDS`.
        stage: number of the stage, from 0.
        microbatch: number of the micro-batch, from 0.
        part: of the weight gradient, where several processors share a stage's; else 0.
    """

    kind: str
    stage: int
    microbatch: int
    part: int = 0

    def __str__(self) -> str:
        return f"{self.kind} of micro-batch {self.microbatch} in stage {self.stage}"


class Action(NamedTuple):
    """An operation on a processor, in time.

    Attributes:
        processor: number of the processor, from 0.
        kind, stage, microbatch, part: those of :class:`Operation`.
        start, end: in the unit of the costs.
    """

    processor: int
    kind: str
    stage: int
    microbatch: int
    start: float
    end: float
    part: int = 0

    @property
    def products(self) -> tuple[Product, ...]:
        """The products computed."""
        return KINDS[self.kind]


class DeadlockError(ValueError):
    """A schedule in which operations wait for one another in a circle."""


#: An operation after its urgency; the smallest is the most urgent.
_Ready = tuple[tuple[int, ...], Operation]


@dataclass(frozen=True)
class Pipeline:
    """Stages, their durations, where they run, and the micro-batches that pass through.

    Attributes:
        microbatches: number of them.
        forward, input_grad, weight_grad: duration of each stage's products.
        lanes: processor of each stage; micro-batch ``i`` takes lane ``i mod len(lanes)``.
            More lanes than one stand for replicated stages, or for two directions.
        splits: whether the two gradients are separate operations, ``I`` and ``W``.
        transfer: time from each stage to the next, where their processors differ.
        fused: (stage, micro-batch) pairs whose gradients are one ``B`` although others
            are split.
        late: time from the end of a forward product to that of the gradient that it runs
            beside, when its result is sent.
        parts: processor and duration of each part of each stage's weight gradient that
            runs apart from the stage; without any, ``W`` runs in the stage.

    Example:
        >>> two = Pipeline(2, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), ((0, 1),))
        >>> two.duration(Operation("B", 0, 0)), two.processors
        (2.0, 2)
    """

    microbatches: int
    forward: tuple[float, ...]
    input_grad: tuple[float, ...]
    weight_grad: tuple[float, ...]
    lanes: tuple[tuple[int, ...], ...]
    splits: bool = False
    transfer: tuple[float, ...] = ()
    fused: frozenset[tuple[int, int]] = frozenset()
    late: Mapping[Operation, float] = field(default_factory=dict)
    parts: tuple[tuple[tuple[int, float], ...], ...] = ()

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.forward)

    @property
    def processors(self) -> int:
        """Number of processors."""
        apart = [place for stage in self.parts for place, _ in stage]
        return 1 + max(max(map(max, self.lanes)), max(apart, default=0))

    def processor(self, operation: Operation) -> int:
        """Processor on which an operation runs."""
        if operation.kind == "W" and self.parts:
            return self.parts[operation.stage][operation.part][0]
        return self.lanes[operation.microbatch % len(self.lanes)][operation.stage]

    def duration(self, operation: Operation) -> float:
        """Duration of an operation."""
        stage = operation.stage
        if operation.kind == "F":
            return self.forward[stage]
        if operation.kind == "I":
            return self.input_grad[stage]
        if operation.kind == "W":
            if self.parts:
                return self.parts[stage][operation.part][1]
            return self.weight_grad[stage]
        return self.input_grad[stage] + self.weight_grad[stage]

    def needs(self, operation: Operation) -> list[tuple[Operation, float]]:
        """Operations that must end before this one starts, each with the time between."""
        kind, stage, microbatch, _ = operation
        if kind == "F":
            if stage == 0:
                return []
            return [self._from(Operation("F", stage - 1, microbatch), operation)]
        if kind == "W":
            return [self._from(Operation("I", stage, microbatch), operation)]
        found = [(Operation("F", stage, microbatch), 0.0)]
        if stage + 1 < self.stages:
            before = Operation(
                self._backward(stage + 1, microbatch), stage + 1, microbatch
            )
            found.append(self._from(before, operation))
        return found

    def followers(self, operation: Operation) -> list[tuple[Operation, float]]:
        """Operations that need this one, each with the time between them."""
        kind, stage, microbatch, _ = operation
        found = []
        if kind == "F":
            if stage + 1 < self.stages:
                found.append(Operation("F", stage + 1, microbatch))
            found.append(
                Operation(self._backward(stage, microbatch), stage, microbatch)
            )
        elif kind != "W":
            if stage:
                before = self._backward(stage - 1, microbatch)
                found.append(Operation(before, stage - 1, microbatch))
            if kind == "I":
                parts = range(len(self.parts[stage])) if self.parts else range(1)
                found += [Operation("W", stage, microbatch, part) for part in parts]
        return [(after, self._from(operation, after)[1]) for after in found]

    def _backward(self, stage: int, microbatch: int) -> str:
        """Kind of the operation that gives the input gradient."""
        return "I" if self.splits and (stage, microbatch) not in self.fused else "B"

    def _from(self, before: Operation, after: Operation) -> tuple[Operation, float]:
        late = self.late.get(before, 0.0) if before.stage != after.stage else 0.0
        apart = before.stage != after.stage and self.transfer
        if not apart or self.processor(before) == self.processor(after):
            return before, late
        return before, late + self.transfer[min(before.stage, after.stage)]

    def operations(self) -> list[Operation]:
        """Every operation once, by micro-batch."""
        found = []
        for microbatch in range(self.microbatches):
            for stage in range(self.stages):
                found.append(Operation("F", stage, microbatch))
                kind = self._backward(stage, microbatch)
                found.append(Operation(kind, stage, microbatch))
                if kind == "B":
                    continue
                parts = range(len(self.parts[stage])) if self.parts else range(1)
                found += [Operation("W", stage, microbatch, part) for part in parts]
        return found


def in_order(pipeline: Pipeline, orders: Sequence[Sequence[Operation]]) -> list[Action]:
    """Start every operation as early as the order of its processor allows.

    Args:
        pipeline: stages and durations.
        orders: operations of each processor, in order.

    Returns:
        The actions, by start.

    Raises:
        DeadlockError: operations wait for one another; the message has the circle.
        ValueError: an operation is missing, stands twice, or stands with another
            processor than the pipeline's.
    """
    _check_orders(pipeline, orders)
    ends: dict[Operation, float] = {}
    waiting: dict[Operation, list[int]] = {}
    heads, free = [0] * len(orders), [0.0] * len(orders)
    actions: list[Action] = []
    ready = list(range(len(orders)))
    while ready:
        processor = ready.pop()
        order = orders[processor]
        while heads[processor] < len(order):
            operation = order[heads[processor]]
            start = free[processor]
            for before, lag in pipeline.needs(operation):
                end = ends.get(before)
                if end is None:
                    waiting.setdefault(before, []).append(processor)
                    break
                start = max(start, end + lag)
            else:
                end = start + pipeline.duration(operation)
                ends[operation] = free[processor] = end
                heads[processor] += 1
                actions.append(_action(processor, operation, start, end))
                ready += waiting.pop(operation, ())
                continue
            break
    if len(actions) < sum(map(len, orders)):
        raise DeadlockError(_circle(pipeline, orders, heads, ends))
    return sorted(actions, key=_by_start)


def _check_orders(pipeline: Pipeline, orders: Sequence[Sequence[Operation]]) -> None:
    """Raise ValueError unless every operation stands once, with its own processor."""
    seen: set[Operation] = set()
    for processor, order in enumerate(orders):
        for operation in order:
            if operation in seen:
                raise ValueError(f"processor {processor}: {operation} stands twice")
            if pipeline.processor(operation) != processor:
                raise ValueError(
                    f"{operation} stands with processor {processor} and belongs to "
                    f"processor {pipeline.processor(operation)}"
                )
            seen.add(operation)
    expected = pipeline.operations()
    if len(seen) != len(expected) or not seen.issuperset(expected):
        wrong = seen.symmetric_difference(expected)
        raise ValueError(
            f"{min(wrong)} is in {'no' if min(wrong) in expected else 'a'} processor's "
            "order, against the stages and micro-batches of the pipeline"
        )


def _circle(
    pipeline: Pipeline,
    orders: Sequence[Sequence[Operation]],
    heads: Sequence[int],
    ends: dict[Operation, float],
) -> str:
    """The circle of operations that wait for one another, as a sentence."""
    processor = next(p for p, head in enumerate(heads) if head < len(orders[p]))
    steps: list[str] = []
    seen: dict[int, int] = {}
    while processor not in seen:
        seen[processor] = len(steps)
        operation = orders[processor][heads[processor]]
        blocker = next(b for b, _ in pipeline.needs(operation) if b not in ends)
        other = pipeline.processor(blocker)
        steps.append(
            f"processor {processor} cannot start {operation} before {blocker}, which "
            f"processor {other} has after {orders[other][heads[other]]}"
        )
        processor = other
    return f"the schedule deadlocks: {'; '.join(steps[seen[processor] :])}"


def list_schedule(
    pipeline: Pipeline,
    caps: Sequence[int],
    orders: Sequence[Sequence[Operation]] | None = None,
) -> list[Action]:
    """Give each free processor the most urgent operation that may start.

    Gradients that others wait for come first, then forward products, later stages before
    earlier ones; or, with ``orders``, the next operation of the processor's order.
    Weight gradients fill the time in which nothing else may start. No forward product
    starts that would keep more activations than the cap; without ``orders``, one place
    stays free on a processor of several stages for micro-batches that have begun, since
    they come back through it.

    Args:
        pipeline: stages and durations.
        caps: activations that each processor may keep, each of one stage and
            micro-batch; an activation is kept from the start of ``F`` to the end of
            ``W`` or ``B``.
        orders: all operations of each processor but the weight gradients, in order.

    Returns:
        The actions, by start.

    Raises:
        DeadlockError: a cap is too small for any micro-batch to come back, or the orders
            wait for one another.
        ValueError: weight gradients run apart from their stages.
    """
    if pipeline.parts:
        raise ValueError("a list schedule keeps weight gradients in their stages")
    return _ListSchedule(pipeline, caps, orders).run()


class _ListSchedule:
    """State of :func:`list_schedule`."""

    def __init__(
        self,
        pipeline: Pipeline,
        caps: Sequence[int],
        orders: Sequence[Sequence[Operation]] | None,
    ) -> None:
        self.pipeline, self.caps, self.orders = pipeline, caps, orders
        count = pipeline.processors
        self.heads = [0] * count
        self.busy = [False] * count
        self.kept = [0] * count
        #: Operations that may start: gradients and forward products, weight gradients.
        self.ready: list[list[_Ready]] = [[] for _ in range(count)]
        self.fillers: list[list[_Ready]] = [[] for _ in range(count)]
        self.arrived: set[Operation] = set()
        #: Gradients that have one of the two operations that they need.
        self.waiting: set[Operation] = set()
        self.events: list[tuple[float, bool, int, Operation]] = []
        self.pushed = 0
        for microbatch in range(pipeline.microbatches):
            self._push(0.0, False, Operation("F", 0, microbatch))
        self.reserve = [0] * count
        self.entry = [pipeline.stages] * count
        for lane in pipeline.lanes:
            for stage, place in enumerate(lane):
                self.reserve[place] |= lane.count(place) > 1
                self.entry[place] = min(self.entry[place], stage)
        self.actions: list[Action] = []

    def _push(self, time: float, ended: bool, operation: Operation) -> None:
        self.pushed += 1
        heapq.heappush(self.events, (time, ended, self.pushed, operation))

    def run(self) -> list[Action]:
        """Advance from event to event until every operation has run."""
        while self.events:
            now = self.events[0][0]
            touched: set[int] = set()
            while self.events and self.events[0][0] <= now:
                _, ended, _, operation = heapq.heappop(self.events)
                processor = self.pipeline.processor(operation)
                touched.add(processor)
                if ended:
                    self._end(operation, processor, now)
                else:
                    self._arrive(operation, processor)
            for processor in sorted(touched):
                if not self.busy[processor]:
                    self._start(processor, now)
        if len(self.actions) < len(self.pipeline.operations()):
            raise DeadlockError(self._stuck())
        return sorted(self.actions, key=_by_start)

    def _arrive(self, operation: Operation, processor: int) -> None:
        kind, stage, microbatch, _ = operation
        self.arrived.add(operation)
        if kind == "W":
            heap, urgency = self.fillers[processor], (microbatch, -stage)
        elif kind == "F":
            heap, urgency = self.ready[processor], (1, -stage, microbatch)
        else:
            heap, urgency = self.ready[processor], (0, microbatch, -stage)
        heapq.heappush(heap, (urgency, operation))

    def _end(self, operation: Operation, processor: int, now: float) -> None:
        """Note the end of an operation, and when those that need it may start."""
        self.kept[processor] -= operation.kind in ("W", "B")
        self.busy[processor] = False
        for after, lag in self.pipeline.followers(operation):
            two = after.kind in ("B", "I") and after.stage + 1 < self.pipeline.stages
            if two and after not in self.waiting:
                self.waiting.add(after)
            else:
                # The forward product is long over, so the last need to end decides.
                self._push(now + lag, False, after)

    def _start(self, processor: int, now: float) -> None:
        """Start the most urgent operation that the processor may start, if any."""
        operation = self._next(processor)
        if operation is None and self.fillers[processor]:
            operation = heapq.heappop(self.fillers[processor])[1]
        if operation is not None:
            end = now + self.pipeline.duration(operation)
            self.busy[processor] = True
            self.kept[processor] += operation.kind == "F"
            self.actions.append(_action(processor, operation, now, end))
            self._push(end, True, operation)

    def _next(self, processor: int) -> Operation | None:
        """The gradient or forward product to start, if one may."""
        if self.orders is not None:
            order, head = self.orders[processor], self.heads[processor]
            if head == len(order) or order[head] not in self.arrived:
                return None
            if not self._has_room(order[head], processor, 0):
                return None
            self.heads[processor] += 1
            return order[head]
        heap, held, found = self.ready[processor], [], None
        while heap and found is None:
            item = heapq.heappop(heap)
            entering = item[1].stage == self.entry[processor]
            if self._has_room(item[1], processor, entering * self.reserve[processor]):
                found = item[1]
            else:
                held.append(item)
        for item in held:
            heapq.heappush(heap, item)
        return found

    def _has_room(self, operation: Operation, processor: int, reserve: int) -> bool:
        kept = self.kept[processor] + reserve
        return operation.kind != "F" or kept < self.caps[processor]

    def _stuck(self) -> str:
        """What waits for room, as a sentence."""
        waiting = [
            f"{item[1]} on processor {p}, which keeps {self.kept[p]} of "
            f"{self.caps[p]} activations"
            for p, heap in enumerate(self.ready)
            for item in heap[:1]
        ]
        left = len(self.pipeline.operations()) - len(self.actions)
        return (
            f"the schedule deadlocks with {left} operations left: {'; '.join(waiting)} "
            "waits for room that only an operation after it frees"
        )


def in_ticks(pipeline: Pipeline) -> list[Action]:
    """Run every stage once a tick, forward and back, each on another micro-batch.

    In tick ``i + s`` stage ``s`` computes ``F`` of micro-batch ``i``, and in tick
    ``i + 2(n-1) - s`` its ``I``, so that results pass between stages at the end of a
    tick only. A weight gradient follows in the tick of its ``I`` where the stage's own
    processor computes it, and in the next tick elsewhere. A tick lasts as long as the
    busiest processor needs, and as the longest transfer.

    Args:
        pipeline: stages and durations, with ``splits``.

    Returns:
        The actions, by start.
    """
    last = pipeline.stages - 1
    ticks: dict[int, dict[int, list[Operation]]] = {}
    for operation in pipeline.operations():
        kind, stage, microbatch, _ = operation
        tick = microbatch + (stage if kind == "F" else 2 * last - stage)
        place = pipeline.processor(operation)
        if kind == "W":
            tick += place != pipeline.lanes[microbatch % len(pipeline.lanes)][stage]
        ticks.setdefault(tick, {}).setdefault(place, []).append(operation)
    length = max(
        sum(pipeline.duration(o) for o in operations)
        for of_processors in ticks.values()
        for operations in of_processors.values()
    )
    length = max(length, *pipeline.transfer) if pipeline.transfer else length
    actions = []
    for tick, of_processors in ticks.items():
        for processor, operations in of_processors.items():
            # Sums of floats may pass the end of the tick by a last digit.
            now, limit = tick * length, (tick + 1) * length
            # Forward first: the last stage goes back in the same tick.
            for operation in sorted(operations, key=_tick_order):
                end = min(now + pipeline.duration(operation), limit)
                actions.append(_action(processor, operation, now, end))
                now = end
    return sorted(actions, key=_by_start)


def _tick_order(operation: Operation) -> tuple[int, int, int]:
    return "FIW".index(operation.kind), operation.stage, operation.microbatch


def _action(processor: int, operation: Operation, start: float, end: float) -> Action:
    kind, stage, microbatch, part = operation
    return Action(processor, kind, stage, microbatch, start, end, part)


def _by_start(action: Action) -> tuple[float, float, int]:
    return action.start, action.end, action.processor
