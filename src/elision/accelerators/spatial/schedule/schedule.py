"""The schedule: primitives applied to a recurrence, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from elision.accelerators.spatial.nest import LoopNest
from elision.accelerators.spatial.schedule.design import Design
from elision.accelerators.spatial.schedule.primitives import PRIMITIVES, Primitive
from elision.accelerators.spatial.schedule.recurrence import Recurrence
from elision.accelerators.spatial.schedule.structure import Structure
from elision.common.names import lookup

__all__ = ["Schedule", "Step"]


@dataclass(frozen=True)
class Step:
    """One primitive of a schedule.

    Attributes:
        primitive: a key of :data:`~.primitives.PRIMITIVES`.
        subject: the kernel or tensor that it is applied to; "" where there is none.
        arguments: names, numbers, and hops as tuples.

    Example:
        >>> print(Step("forward", "A_feeder", ((1, 0),)))
        A_feeder.forward({1,0})
    """

    primitive: str
    subject: str
    arguments: tuple[Any, ...]

    def applied(self, made: Structure) -> Structure:
        """The structure after the step.

        Raises:
            ValueError: the step is refused; the message begins with the step.
        """
        primitive: Primitive = lookup("primitive", self.primitive, PRIMITIVES)
        try:
            return primitive.apply(made, self.subject, self.arguments)
        except ValueError as error:
            raise ValueError(f"{self.called()}: {error}") from error

    def called(self) -> str:
        """The step with its subject as the first argument."""
        first = [self.subject] if self.subject else []
        return f"{self.primitive}({','.join([*first, *map(_text, self.arguments)])})"

    def __str__(self) -> str:
        subject = f"{self.subject}." if self.subject else ""
        return f"{subject}{self.primitive}({', '.join(map(_text, self.arguments))})"


def _text(argument: Any) -> str:
    if isinstance(argument, tuple):
        return "{" + ",".join(map(str, argument)) + "}"
    return str(argument)


@dataclass(frozen=True)
class Schedule:
    """A recurrence and the steps that make an array of it.

    Each method adds one primitive of T2S and is named as there; loops are listed with
    the innermost first. A step that is wrong is refused when it is added.

    Attributes:
        nest: what is scheduled; of a LoopNest, its recurrence is taken.
        steps: in order.

    Raises:
        ValueError: a step is refused; the message begins with it.

    Example:
        >>> schedule = (
        ...     Schedule(LoopNest.matmul(64, 64, 64))
        ...     .tile("k", "j", "i", "kk", "jj", "ii", 16, 8, 4)
        ...     .unroll("jj", "ii")
        ...     .forward("A", (1, 0))
        ...     .forward("B", (0, 1))
        ... )
        >>> schedule.design().map.space
        ('jj', 'ii')
        >>> schedule.forward("A", (0, 1))
        Traceback (most recent call last):
        ValueError: forward(A,{0,1}): ii indexes A, it is no reuse loop; A can be \
forwarded along jj
    """

    nest: Recurrence | LoopNest
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.nest, LoopNest):
            object.__setattr__(self, "nest", Recurrence.of(self.nest))
        self.structure  # noqa: B018 (refuses what is wrong)

    @property
    def recurrence(self) -> Recurrence:
        """What is scheduled."""
        assert isinstance(self.nest, Recurrence)
        return self.nest

    @cached_property
    def structure(self) -> Structure:
        """Loops, array and kernels after all steps."""
        made = Structure.of(self.recurrence)
        for step in self.steps:
            made = step.applied(made)
        return made

    def then(self, primitive: str, subject: str, *arguments: Any) -> "Schedule":
        """The schedule with one more step.

        Raises:
            ValueError: an unknown primitive (lists the valid ones), or one that is
                refused.
        """
        step = Step(primitive, subject, arguments)
        return replace(self, steps=(*self.steps, step))

    def with_sizes(self, sizes: Mapping[str, int]) -> "Schedule":
        """The same schedule at other sizes.

        Raises:
            ValueError: an unknown size; lists the valid ones.
        """
        return replace(self, nest=self.recurrence.with_sizes(sizes))

    def design(self, array: tuple[int, int] | None = None, latency: int = 1) -> Design:
        """The array, its I/O network and their cost; see :class:`~.design.Design`."""
        return Design(self.structure, array, latency)

    def tile(self, *arguments: str | int) -> "Schedule":
        """Split loops: ``tile(loop, ..., name inside the tile, ..., size, ...)``.

        The loops over tiles come first, then those inside; of both, the one listed first
        is innermost.
        """
        return self.then("tile", "", *arguments)

    def reorder(self, *loops: str) -> "Schedule":
        """Put loops into another order, the innermost first, in the places they have."""
        return self.then("reorder", "", *loops)

    def unroll(self, *loops: str) -> "Schedule":
        """Make loops the axes x, y, ... of the array."""
        return self.then("unroll", "", *loops)

    def merge_ures(self, *tensors: str) -> "Schedule":
        """State that the recurrences of tensors share one nest; they do, in a sum."""
        return self.then("merge_ures", "", *tensors)

    def isolate_producer_chain(self, tensor: str, *kernels: str) -> "Schedule":
        """Let kernels load and feed a tensor, from the memory to the array."""
        return self.then("isolate_producer_chain", "", tensor, *kernels)

    def isolate_consumer_chain(self, tensor: str, *kernels: str) -> "Schedule":
        """Let kernels drain and unload the results, from the array to the memory."""
        return self.then("isolate_consumer_chain", "", tensor, *kernels)

    def remove(self, kernel: str, *loops: str) -> "Schedule":
        """Send a datum once instead of in each iteration of loops that reuse it."""
        return self.then("remove", kernel, *loops)

    def buffer(self, kernel: str, loop: str, strategy: str = "Double") -> "Schedule":
        """Keep the tile below a loop in time; ``Double``: while the next is written."""
        return self.then("buffer", kernel, loop, strategy)

    def forward(self, subject: str, hop: tuple[int, ...]) -> "Schedule":
        """Hand a tensor to the neighbour ``hop``, a step for each unrolled loop."""
        return self.then("forward", subject, hop)

    def scatter(self, kernel: str, loop: str, direction: str = "Up") -> "Schedule":
        """Feed a row of kernels at one end; each keeps its own part."""
        return self.then("scatter", kernel, loop, direction)

    def gather(
        self, kernel: str, loop: str | tuple[int, ...], direction: str = "Up"
    ) -> "Schedule":
        """Let results of a row of elements leave at one end."""
        more = () if isinstance(loop, tuple) else (direction,)
        return self.then("gather", kernel, loop, *more)

    def vload(self, kernel: str, *loops: str) -> "Schedule":
        """Load the data of contiguous loops from the memory in one transfer."""
        return self.then("vload", kernel, *loops)

    def vstore(self, kernel: str, *loops: str) -> "Schedule":
        """Store the results of contiguous loops in one transfer."""
        return self.then("vstore", kernel, *loops)

    def vectorize(self, kernel: str, *loops: str) -> "Schedule":
        """Send the data of loops to the next kernel in one transfer."""
        return self.then("vectorize", kernel, *loops)

    def __str__(self) -> str:
        return "\n".join([str(self.recurrence), *map(str, self.steps)])
