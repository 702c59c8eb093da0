"""DualPipe and DualPipeV: micro-batches enter from both ends, or come back in a V.

The phases of each processor, with ``q`` its distance to the nearer end (in DualPipeV: to
the first processor) and ``H`` half the processors (in DualPipeV: all): forward products of
the near direction, forward products of both, gradients of the far direction with forward
products, forward and back of both by turns, and what is left.

A forward product beside the gradients of the other direction is one block that sends both
results at its end. No overlap is credited: the block lasts as long as its parts, whose
durations are known apart only.
"""

from dataclasses import replace
from functools import partial

from elision.training.pipeline.scheduler import Action, Operation, Pipeline, in_order
from elision.training.pipeline.schedules.base import Schedule

__all__ = ["DUALPIPE", "DUALPIPE_V"]

_SOURCE = "DeepSeek-AI, DualPipe, 2025, after the DeepSeek-V3 technical report"


class _Processor:
    """Order of one processor, built operation by operation.

    Args:
        stage: stage of each direction on this processor.
        batches: micro-batches of each direction, in order.
    """

    def __init__(self, stage: tuple[int, int], batches: tuple[range, range]) -> None:
        self.stage = stage
        self.forward = tuple(map(iter, batches))
        self.back = tuple(map(iter, batches))
        self.order: list[Operation] = []
        self.beside: list[tuple[Operation, Operation]] = []
        self.held: list[Operation] = []

    def f(self, way: int) -> None:
        """Forward product of the next micro-batch of a direction."""
        batch = next(self.forward[way])
        self.order.append(Operation("F", self.stage[way], batch))

    def b(self, way: int, split: bool = False) -> None:
        """Both gradients, or the input gradient alone where they are split."""
        batch = next(self.back[way])
        kind = "I" if split else "B"
        self.order.append(Operation(kind, self.stage[way], batch))
        if split:
            self.held.append(Operation("W", self.stage[way], batch))

    def w(self) -> None:
        """The weight gradient held longest."""
        self.order.append(self.held.pop(0))

    def block(self, forward: int, back: int) -> None:
        """A forward product beside both gradients of the other direction."""
        self.f(forward)
        self.b(back)
        self.beside.append((self.order[-2], self.order[-1]))

    def fill(self, near: int, half: int, batches: int) -> "_Processor":
        """The order of a processor at distance ``near`` of ``half``."""
        inner = half - near - 1
        for _ in range(2 * inner):
            self.f(0)
        for _ in range(near + 1):
            self.f(0)
            self.f(1)
        for _ in range(inner):
            self.b(1, split=True)
            self.w()
            self.f(1)
        for _ in range(batches - 2 * half + near + 1):
            self.block(0, 1)
            self.block(1, 0)
        for _ in range(inner):
            self.b(1)
            self.block(1, 0)
        # The later half of these gradients is split: the weight gradients fill the end.
        gradients = 2 * (near + 1)
        for place in range(gradients):
            self.b(1 - place % 2, split=2 * place > gradients - 1)
        for _ in range(inner):
            self.w()
            self.b(0, split=True)
        for _ in range(near + 1):
            self.w()
        return self


def _arranged(pipeline: Pipeline, processors: list[_Processor]) -> list[Action]:
    orders = [processor.order for processor in processors]
    fused = frozenset(
        (o.stage, o.microbatch) for order in orders for o in order if o.kind == "B"
    )
    late = {
        forward: pipeline.duration(gradients)
        for processor in processors
        for forward, gradients in processor.beside
    }
    return in_order(replace(pipeline, fused=fused, late=late), orders)


def _both_ways(pipeline: Pipeline) -> list[Action]:
    count, batches = pipeline.processors, pipeline.microbatches
    if count % 2 or batches % 2 or batches < 2 * count:
        raise ValueError(
            f"DualPipe needs an even number of processors and an even number of at least "
            f"twice as many micro-batches; given {count} processors, {batches} micro-batches"
        )
    ways = (range(0, batches, 2), range(1, batches, 2))
    processors = []
    for p in range(count):
        own = _Processor((p, count - 1 - p), ways)
        if p >= count // 2:
            own = _Processor((count - 1 - p, p), (ways[1], ways[0]))
        near = min(p, count - 1 - p)
        processors.append(own.fill(near, count // 2, batches // 2))
    return _arranged(pipeline, processors)


def _there_and_back(pipeline: Pipeline) -> list[Action]:
    count, batches = pipeline.processors, pipeline.microbatches
    if batches < 2 * count:
        raise ValueError(
            f"DualPipeV needs at least two micro-batches per processor; given {count} "
            f"processors, {batches} micro-batches"
        )
    ways = (range(batches), range(batches))
    processors = [
        _Processor((p, pipeline.stages - 1 - p), ways).fill(p, count, batches)
        for p in range(count)
    ]
    return _arranged(pipeline, processors)


_schedule = partial(Schedule, source=_SOURCE, splits=True)

DUALPIPE = _schedule(
    name="dualpipe", title="DualPipe", arrange=_both_ways, route="both-ways"
)
DUALPIPE_V = _schedule(
    name="dualpipev", title="DualPipeV", arrange=_there_and_back, route="v", chunks=2
)
