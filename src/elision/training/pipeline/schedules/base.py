"""Schedule: a pipeline schedule as data for the one scheduler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from elision.common.checks import one_of
from elision.training.pipeline.scheduler import Action, Operation, Pipeline

__all__ = ["MEMORIES", "ROUTES", "Schedule", "alternating", "route"]

#: How the stages lie on the processors: one each; several each, round and round; two each,
#: there and back; two copies of the network in opposite directions.
ROUTES = ("line", "loop", "v", "both-ways")

#: What becomes of the weights while a micro-batch is under way: nothing changes them
#: ("flush"); every version in use is kept ("stash"); nothing is kept, so that the
#: gradients read newer weights than the forward product ("none"); two are kept
#: ("double"); the old version is rebuilt from a moving average of updates ("average").
MEMORIES = ("flush", "stash", "none", "double", "average")

#: A number for a stage: (stage, stages) -> number.
OfStage = Callable[[int, int], int]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A pipeline schedule.

    Attributes:
        name: as on the command line.
        title: for people.
        source: publication.
        arrange: actions in time of a pipeline.
        splits: whether input and weight gradient are two operations.
        chunks: stages per processor.
        route: one of :data:`ROUTES`.
        partition: name of its partitioner.
        weights: one of :data:`MEMORIES`.
        delay: updates between the weights that a gradient was computed for and those
            that it changes; 0 for a synchronous schedule.

    Raises:
        ValueError: an unknown route or memory.

    Example:
        >>> from elision.training.pipeline.schedules import SCHEDULES
        >>> SCHEDULES["zb1p"].splits, SCHEDULES["pipedream"].delay(0, 4)
        (True, 3)
    """

    name: str
    title: str
    source: str
    arrange: Callable[[Pipeline], list[Action]]
    splits: bool = False
    chunks: int = 1
    route: str = "line"
    partition: str = "contiguous"
    weights: str = "flush"
    delay: OfStage = lambda stage, stages: 0

    def __post_init__(self) -> None:
        one_of(f"Schedule {self.name!r}", "route", self.route, ROUTES)
        one_of(f"Schedule {self.name!r}", "weights", self.weights, MEMORIES)

    @property
    def synchronous(self) -> bool:
        """Whether all micro-batches of a step see the same weights."""
        return self.weights == "flush"

    def versions(self, under_way: int) -> int:
        """Weight versions of a stage with so many micro-batches under way at most.

        Where versions are stashed, each micro-batch under way has seen its own; a moving
        average counts as a version.
        """
        fixed = {"flush": 1, "none": 1, "double": 2, "average": 2}
        return fixed.get(self.weights, under_way)


def route(kind: str, processors: int, chunks: int) -> tuple[tuple[int, ...], ...]:
    """Processor of each stage, a lane for each direction.

    Example:
        >>> route("v", 2, 2), route("loop", 2, 2), route("both-ways", 2, 1)
        (((0, 1, 1, 0),), ((0, 1, 0, 1),), ((0, 1), (1, 0)))
    """
    there = tuple(range(processors))
    if kind == "v":
        return ((*there, *reversed(there)),)
    if kind == "both-ways":
        return there, tuple(reversed(there))
    return (there * chunks,)


def alternating(
    pipeline: Pipeline,
    warm_up: Sequence[int],
    held_back: Sequence[int] | None = None,
) -> list[list[Operation]]:
    """Order of each stage: forward products ahead, then forward and back by turns.

    Args:
        pipeline: with one stage per processor.
        warm_up: forward products of each stage before its first gradient.
        held_back: weight gradients of each stage that wait until the end, where they
            fill time in which nothing else can run; None: gradients are not split.
    """
    orders: list[list[Operation]] = [[] for _ in range(pipeline.processors)]
    lanes = len(pipeline.lanes)
    for stage in range(pipeline.stages):
        replicas: dict[int, list[int]] = {}
        for microbatch in range(pipeline.microbatches):
            place = pipeline.lanes[microbatch % lanes][stage]
            replicas.setdefault(place, []).append(microbatch)
        for place, batches in replicas.items():
            ahead = min(warm_up[stage], len(batches))
            order = orders[place]
            order += [Operation("F", stage, i) for i in batches[:ahead]]
            forward, weighed = batches[ahead:], 0
            for done, i in enumerate(batches, start=1):
                order.append(Operation("B" if held_back is None else "I", stage, i))
                rest = forward[done - 1 : done]
                late = held_back is not None and (
                    done - weighed > held_back[stage] or not rest
                )
                if late:
                    order.append(Operation("W", stage, batches[weighed]))
                    weighed += 1
                order += [Operation("F", stage, i) for i in rest]
            if held_back is not None:
                order += [Operation("W", stage, i) for i in batches[weighed:]]
    return orders
