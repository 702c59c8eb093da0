"""A network's activations as planning sees them: tensors of bytes between operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from elision.common.checks import integer

__all__ = ["Buffer", "Graph", "Operation", "buffers", "live_bytes", "peak_bytes"]


@dataclass(frozen=True)
class Operation:
    """One step of a network's inference, as the memory sees it.

    Args:
        name: of the step, such as the layer's.
        kind: what it does: ``"conv2d"``, ``"add"``, ``"cat"``.
        reads: tensors that it reads; each stays live through the step.
        writes: tensors that it makes; live from this step on.
        in_place: the tensors of ``reads`` whose bytes the first of ``writes`` may take
            over, element by element.
        macs: multiply-accumulates of the step.

    Example:
        >>> Operation("add1", "add", ("x", "y"), ("z",), in_place=("x", "y")).writes
        ('z',)
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: tuple[str, ...] = ()
    macs: int = 0


@dataclass(frozen=True)
class Graph:
    """Operations that read and write tensors, in an order that works.

    Args:
        sizes: bytes of each tensor, by name.
        operations: in one valid order.
        inputs: tensors that are there before the first operation.
        outputs: tensors that must be there after the last.

    Raises:
        ValueError: a tensor is written twice, read before it is written, unknown or of
            no whole number of bytes, or there is no operation.

    Example:
        >>> chain = Graph(
        ...     {"x": 10, "y": 20},
        ...     (Operation("layer", "linear", ("x",), ("y",)),), ("x",), ("y",),
        ... )
        >>> peak_bytes(chain)
        30
    """

    sizes: Mapping[str, int]
    operations: tuple[Operation, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.operations:
            raise ValueError("Graph(operations=()): a graph needs at least one")
        for name, size in self.sizes.items():
            integer("Graph", f"sizes[{name!r}]", size, ">= 0")
        there: set[str] = set()
        for name in self.inputs:
            self._write(name, there, "inputs")
        for operation in self.operations:
            for name in operation.reads:
                if name not in there:
                    raise ValueError(
                        f"Graph: {operation.name} reads {name!r} before it is written"
                    )
            if stray := set(operation.in_place) - set(operation.reads):
                raise ValueError(
                    f"Graph: {operation.name} may overwrite {sorted(stray)}, which it "
                    "does not read"
                )
            for name in operation.writes:
                self._write(name, there, operation.name)
        if missing := [name for name in self.outputs if name not in there]:
            raise ValueError(f"Graph: nothing writes the outputs {missing}")

    def _write(self, name: str, there: set[str], where: str) -> None:
        if name in there:
            raise ValueError(f"Graph: {where} writes {name!r}, which is there already")
        if name not in self.sizes:
            raise ValueError(f"Graph: {where} writes {name!r}, whose bytes are unknown")
        there.add(name)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all operations."""
        return sum(operation.macs for operation in self.operations)


class Buffer(NamedTuple):
    """Bytes that are in use from one step to another; in place, of several tensors.

    Attributes:
        names: of the tensors.
        size_bytes: of the largest of them.
        first, last: steps, inclusive, between which the bytes are in use.

    Example:
        >>> step = Operation("f", "f", ("x",), ("y",))
        >>> buffers(Graph({"x": 4, "y": 2}, (step,), ("x",), ("y",)))[0]
        Buffer(names=('x',), size_bytes=4, first=0, last=0)
    """

    names: tuple[str, ...]
    size_bytes: int
    first: int
    last: int


def buffers(
    graph: Graph, order: Sequence[int] | None = None, *, in_place: bool = False
) -> list[Buffer]:
    """The lifetimes of a graph's tensors under an order of its operations.

    A graph's input lives from step 0 to its last reader, a tensor from the step that
    writes it to its last reader, an output to the last step. Both ends are inclusive: an
    operation's inputs and outputs are live together.

    Args:
        graph: the operations.
        order: their indices, a topological order; None: as they stand.
        in_place: an operation's output takes the bytes of an input that it may
            overwrite, if that has the same number of bytes, is not an output of the
            graph and has no later reader.

    Raises:
        ValueError: the order is no topological order of the operations.
    """
    steps = _checked(graph, order)
    last_read = {name: 0 for name in graph.inputs}
    first = dict.fromkeys(graph.inputs, 0)
    for step, index in enumerate(steps):
        for name in graph.operations[index].reads:
            last_read[name] = step
        for name in graph.operations[index].writes:
            first[name] = last_read[name] = step
    for name in graph.outputs:
        last_read[name] = len(steps) - 1
    group: dict[str, list[str]] = {name: [name] for name in first}
    if in_place:
        for step, index in enumerate(steps):
            operation = graph.operations[index]
            dying = (
                name
                for name in operation.in_place
                if last_read[name] == step
                and name not in graph.outputs
                and graph.sizes[name] == graph.sizes[operation.writes[0]]
            )
            if (taken := next(dying, None)) is not None:
                members = group[taken] + group[operation.writes[0]]
                group.update(dict.fromkeys(members, members))
    made = {id(names): names for names in group.values()}
    return [
        Buffer(
            tuple(names),
            graph.sizes[names[0]],
            min(first[name] for name in names),
            max(last_read[name] for name in names),
        )
        for names in made.values()
    ]


def live_bytes(
    graph: Graph, order: Sequence[int] | None = None, *, in_place: bool = False
) -> list[int]:
    """Bytes of the tensors that are live at each step; arguments of :func:`buffers`."""
    live = [0] * len(graph.operations)
    for buffer in buffers(graph, order, in_place=in_place):
        for step in range(buffer.first, buffer.last + 1):
            live[step] += buffer.size_bytes
    return live


def peak_bytes(
    graph: Graph, order: Sequence[int] | None = None, *, in_place: bool = False
) -> int:
    """The most bytes that are live at one step; arguments of :func:`buffers`.

    No placement of the tensors needs fewer bytes under this order.
    """
    return max(live_bytes(graph, order, in_place=in_place))


def _checked(graph: Graph, order: Sequence[int] | None) -> Sequence[int]:
    if order is None:
        return range(len(graph.operations))
    if sorted(order) != list(range(len(graph.operations))):
        raise ValueError(
            f"order {list(order)}: must name each of the {len(graph.operations)} "
            "operations once"
        )
    there = set(graph.inputs)
    for index in order:
        operation = graph.operations[index]
        if missing := [name for name in operation.reads if name not in there]:
            raise ValueError(
                f"order: {operation.name} comes before what writes {missing}"
            )
        there.update(operation.writes)
    return order
