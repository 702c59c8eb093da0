"""What every processor does for a stream of micro-batches, settled before anything runs.

Every rank derives the same table from the plan: who computes which operation in which
order, which updates a forward pass waits for, and which messages pass between two ranks in
which order. A circle of operations that wait for one another is found here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from elision.products import Product
from elision.training.pipeline.runtime.messages import Message
from elision.training.pipeline.runtime.planned import Planned
from elision.training.pipeline.scheduler import Action, DeadlockError, Operation

__all__ = ["HALF", "Half", "Orders"]

#: Part of an input gradient's operation that is the share computed elsewhere.
HALF = 1


class Half(NamedTuple):
    """The share of an input gradient that another processor computes.

    Attributes:
        place: the processor.
        share: of the input's channels, the last ones.
    """

    place: int
    share: float

    def kept(self, channels: int) -> int:
        """Of so many input channels, those that the stage computes itself."""
        return channels - max(1, round(self.share * channels))


@dataclass(frozen=True)
class Orders:
    """Operations of each rank for ``updates`` updates of every stage.

    Attributes:
        plan: of an asynchronous schedule with one processor per stage and direction.
        updates: of each stage.
        per_update: micro-batches whose gradients one update averages.
        by_rank: operations of each rank, in order.
    """

    plan: Planned
    updates: int
    per_update: int
    by_rank: tuple[tuple[Operation, ...], ...]

    @classmethod
    def of(cls, plan: Planned, updates: int, per_update: int) -> "Orders":
        """Arrange a stream of micro-batches by the plan's schedule.

        Raises:
            DeadlockError: operations wait for one another; the message has the circle.
        """
        stream = replace(plan.pipeline, microbatches=updates * per_update)
        found: list[list[Operation]] = [[] for _ in range(plan.processors)]
        halves = _halves(plan)
        for action in plan.schedule.arrange(stream):
            operation = _operation(action)
            if operation.kind == "I" and operation.stage in halves:
                # Beside its stage's, when the stage has the gradient that it needs.
                half = operation._replace(part=HALF)
                found[halves[operation.stage].place].append(half)
            found[action.processor].append(operation)
        orders = cls(plan, updates, per_update, tuple(map(tuple, found)))
        orders.check()
        return orders

    @cached_property
    def halves(self) -> dict[int, Half]:
        """Stages whose last layer's input gradient is computed elsewhere in part."""
        return _halves(self.plan)

    @cached_property
    def _before(self) -> dict[Operation, Operation]:
        """What a stage does before an input gradient of which it sends a share away."""
        return {
            operation: before
            for order in self.by_rank
            for before, operation in pairwise(order)
            if operation.kind == "I" and operation.stage in self.halves
        }

    def place_of(self, operation: Operation) -> int:
        """The rank that computes an operation."""
        if operation.kind == "I" and operation.part == HALF:
            return self.halves[operation.stage].place
        return self.plan.pipeline.processor(operation)

    def rank_of(self, stage: int) -> int:
        """The rank of a stage, which holds its weights."""
        return self.plan.pipeline.lanes[0][stage]

    def update_of(self, microbatch: int) -> int:
        """Which update a micro-batch's gradient belongs to."""
        return microbatch // self.per_update

    def version_of(self, stage: int, microbatch: int) -> int:
        """Updates before the forward pass of a micro-batch."""
        return max(0, self.update_of(microbatch) - self.plan.delays[stage])

    def layers_of(self, stage: int, part: int) -> list[int]:
        """Layers of a part of a stage's weight gradient, by their place in the stage."""
        partition = self.plan.partition
        place, _ = self.plan.pipeline.parts[stage][part]
        layers = partition.layers[stage]
        return [
            layers.index(piece.layer)
            for piece in partition.stages[place]
            if piece.product is Product.WEIGHT_GRAD and piece.layer in layers
        ]

    def sender_of(self, message: Message) -> int:
        """The rank that a message comes from."""
        if message.what == "activation":
            return self.rank_of(message.stage - 1)
        if message.what == "gradient":
            return self.rank_of(message.stage + 1)
        if message.what in ("operands", "half's operands"):
            return self.rank_of(message.stage)
        if message.what == "half":
            return self.halves[message.stage].place
        return self.plan.pipeline.parts[message.stage][message.part][0]

    def parts(self, stage: int) -> int:
        """Parts of a stage's weight gradient that are operations of their own."""
        parts = self.plan.pipeline.parts
        return len(parts[stage]) if parts else 0

    def away(self, stage: int) -> list[int]:
        """Those of them that another processor computes."""
        home = self.rank_of(stage)
        places = self.plan.pipeline.parts[stage] if self.plan.pipeline.parts else ()
        return [part for part, (place, _) in enumerate(places) if place != home]

    def sent_by(self, operation: Operation) -> list[tuple[Message, int]]:
        """Messages that follow an operation, each with the rank it goes to."""
        kind, stage, microbatch, part = operation
        if kind == "I" and part == HALF:
            return [(Message("half", stage, microbatch), self.rank_of(stage))]
        pipeline, found = self.plan.pipeline, []
        here = self.place_of(operation)
        if kind == "F" and stage + 1 < pipeline.stages:
            found.append((Message("activation", stage + 1, microbatch), stage + 1))
        if kind in "BI" and stage:
            found.append((Message("gradient", stage - 1, microbatch), stage - 1))
        to = [(message, self.rank_of(other)) for message, other in found]
        if kind == "I" and stage in self.halves:
            message = Message("half's operands", stage, microbatch)
            to.insert(0, (message, self.halves[stage].place))
        if kind == "I":
            for other in self.away(stage):
                place, _ = pipeline.parts[stage][other]
                to.append((Message("operands", stage, microbatch, other), place))
        if kind == "W" and part in self.away(stage):
            message = Message("weight gradient", stage, microbatch, part)
            to.append((message, self.rank_of(stage)))
        return [(message, rank) for message, rank in to if rank != here]

    def expected(self, rank: int) -> dict[int, list[Message]]:
        """Messages to a rank from each other one, in the order in which they are sent."""
        return {
            other: [m for o in order for m, to in self.sent_by(o) if to == rank]
            for other, order in enumerate(self.by_rank)
            if other != rank
        }

    def needs(self, operation: Operation) -> Iterator[Operation]:
        """Operations that must have run: those of the pipeline, and of earlier updates."""
        pipeline = self.plan.pipeline
        yield from (before for before, _ in pipeline.needs(operation))
        if operation.kind == "I" and operation.stage in self.halves:
            whole = operation._replace(part=0)
            if operation.part == HALF:
                if whole in self._before:
                    yield self._before[whole]
            else:
                yield operation._replace(part=HALF)
        if operation.kind != "F":
            return
        stage = operation.stage
        kind = "W" if pipeline.splits else "B"
        last = self.version_of(stage, operation.microbatch) * self.per_update - 1
        if last >= 0:
            for part in range(max(1, self.parts(stage))):
                yield Operation(kind, stage, last, part)

    def check(self) -> None:
        """Run the table without computing.

        Raises:
            DeadlockError: operations wait for one another; the message has the circle.
        """
        heads = [0] * len(self.by_rank)
        done: set[Operation] = set()
        moved = True
        while moved:
            moved = False
            for rank, order in enumerate(self.by_rank):
                while heads[rank] < len(order):
                    operation = order[heads[rank]]
                    if not done.issuperset(self.needs(operation)):
                        break
                    done.add(operation)
                    heads[rank] += 1
                    moved = True
        if any(head < len(o) for head, o in zip(heads, self.by_rank, strict=True)):
            raise DeadlockError(self._circle(heads, done))

    def _circle(self, heads: Sequence[int], done: set[Operation]) -> str:
        rank = next(r for r, o in enumerate(self.by_rank) if heads[r] < len(o))
        seen: dict[int, int] = {}
        steps: list[str] = []
        while rank not in seen:
            seen[rank] = len(steps)
            operation = self.by_rank[rank][heads[rank]]
            blocker = next(b for b in self.needs(operation) if b not in done)
            other = self.place_of(blocker)
            steps.append(
                f"rank {rank}: {operation} waits for {blocker} on rank {other}"
            )
            rank = other
        return f"the schedule deadlocks: {'; '.join(steps[seen[rank] :])}"


def _halves(plan: Planned) -> dict[int, Half]:
    """Shares of input gradients away from their stage, by the stage.

    The first layer's input is data, which has no gradient.
    """
    homes = {l: s for s, own in enumerate(plan.partition.layers) for l in own}
    return {
        homes[piece.layer]: Half(place, piece.share)
        for place, pieces in enumerate(plan.partition.stages)
        for piece in pieces
        if piece.product is Product.INPUT_GRAD
        and piece.layer
        and homes[piece.layer] != place
    }


def _operation(action: Action) -> Operation:
    return Operation(action.kind, action.stage, action.microbatch, action.part)
