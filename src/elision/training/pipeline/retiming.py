"""Where LayerPipe2 puts its delays, as a transformation of the training step's graph.

The graph has a node for each product of each layer and for its weights, and an edge, with a
number of registers, wherever one reads another. A register holds a value for one update.
Pipelining is then two moves (LayerPipe2, arXiv 2512.08160):

1. *Delay.* Registers are added where the algorithm bears them: on edges that cross a
   feed-forward cutset (input and output), which makes results come later, and on the edge
   from a layer's weight gradient to its update, which makes that update use an older
   gradient (delayed LMS): ``2·S(l)``, twice the pipeline stages after layer ``l``.
2. *Retime.* A node moved by ``r`` updates takes ``r`` registers more on each edge into it
   and ``r`` fewer on each edge out of it. No loop's number of registers changes, so neither
   does what is computed.

So the delays at the gradient edges become registers between stages, and everything a stage
must keep can be read off the edges: activations from ``F`` to ``dW``, and old weights (the
stash) from ``W`` to ``dX``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from elision.common.checks import integer
from elision.report.retiming_figure import retiming_svg

__all__ = ["DataFlow", "Edge", "check_retimed", "draw", "layerpipe2", "training_step"]

Kind = Literal[
    "input", "forward", "backward", "activation", "weights", "gradient", "output"
]


@dataclass(frozen=True)
class Edge:
    """One value read: from the node that computes it to one that reads it.

    Attributes:
        source, target: nodes.
        delay: registers on it.
        kind: what travels: ``input``, activations ``forward`` to the next layer,
            gradients ``backward``, an ``activation`` kept for dW, ``weights``, or the weight
            ``gradient`` on its way to the update.
    """

    source: str
    target: str
    delay: int
    kind: Kind


@dataclass(frozen=True)
class DataFlow:
    """A synchronous data-flow graph: in every update each node computes once.

    Attributes:
        edges: with their registers; nodes are what they name.
    """

    edges: tuple[Edge, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node once, in the order of the edges."""
        return tuple(dict.fromkeys(n for e in self.edges for n in (e.source, e.target)))

    def delayed(self, kind: Kind, by: Mapping[str, int]) -> "DataFlow":
        """Registers added on the edges of one kind, by the node they come from."""
        return DataFlow(
            tuple(
                replace(e, delay=e.delay + by.get(e.source, 0)) if e.kind == kind else e
                for e in self.edges
            )
        )

    def on_cutset(self, upstream: Iterable[str], registers: int) -> "DataFlow":
        """Registers added on every edge from ``upstream`` to the other nodes.

        Raises:
            ValueError: the cutset is not feed-forward: an edge leads back across it, so
                that the registers would lie in a loop.
        """
        ahead = set(upstream)
        for edge in self.edges:
            if edge.target in ahead and edge.source not in ahead:
                raise ValueError(
                    f"not a feed-forward cutset: {edge.source} -> {edge.target} leads "
                    "back across it"
                )
        return DataFlow(
            tuple(
                replace(e, delay=e.delay + registers)
                if e.source in ahead and e.target not in ahead
                else e
                for e in self.edges
            )
        )

    def retimed(self, moves: Mapping[str, int]) -> "DataFlow":
        """Registers moved across nodes.

        Args:
            moves: node -> ``r``; ``r`` registers are taken from each of its outputs and
                put on each of its inputs. Others stay.

        Raises:
            ValueError: an edge would hold fewer than no registers.
        """
        edges = []
        for e in self.edges:
            delay = e.delay + moves.get(e.target, 0) - moves.get(e.source, 0)
            if delay < 0:
                raise ValueError(
                    f"retiming leaves {delay} registers on {e.source} -> {e.target}"
                )
            edges.append(replace(e, delay=delay))
        return DataFlow(tuple(edges))

    def delay(self, source: str, target: str) -> int:
        """Registers from one node to another.

        Raises:
            ValueError: no such edge.
        """
        for edge in self.edges:
            if (edge.source, edge.target) == (source, target):
                return edge.delay
        raise ValueError(f"no edge {source} -> {target}")


def training_step(layers: int) -> DataFlow:
    """The step of a chain of layers: ``F``, ``dX``, ``dW`` and weights ``W`` of each.

    One register holds the weights of each layer from an update to the next; another lies
    on the gradient edge, since ``W(t+1)`` uses the gradient of step ``t``.

    Example:
        >>> step = training_step(2)
        >>> step.delay("W1", "F1"), step.delay("dW1", "W1")
        (0, 1)
    """
    integer("training_step", "layers", layers)
    edges = [
        Edge("input", "F1", 0, "input"),
        Edge(f"F{layers}", "loss", 0, "forward"),
        Edge("loss", "output", 0, "output"),
    ]
    for l in range(1, layers + 1):
        below = f"F{l - 1}" if l > 1 else "input"
        above = f"dX{l + 1}" if l < layers else "loss"
        if l > 1:
            edges.append(Edge(below, f"F{l}", 0, "forward"))
            edges.append(Edge(above, f"dX{l}", 0, "backward"))
            edges.append(Edge(f"W{l}", f"dX{l}", 0, "weights"))
        edges += [
            Edge(above, f"dW{l}", 0, "backward"),
            Edge(below, f"dW{l}", 0, "activation"),
            Edge(f"W{l}", f"F{l}", 0, "weights"),
            Edge(f"dW{l}", f"W{l}", 1, "gradient"),
            Edge(f"W{l}", f"W{l}", 1, "weights"),
        ]
    return DataFlow(tuple(edges))


def layerpipe2(stage_of: Sequence[int]) -> tuple[DataFlow, DataFlow]:
    """The delayed step and its retiming to one register between stages.

    Args:
        stage_of: stage of each layer, first layer first: 0 and on, none left out.

    Returns:
        The step with ``2·S(l)`` registers more on each gradient edge and one per stage on
        the cutset before the output, and the same retimed.

    Raises:
        ValueError: the stages do not go up in steps of one from 0.

    Example:
        >>> delayed, piped = layerpipe2([0, 0, 1])
        >>> delayed.delay("dW1", "W1"), piped.delay("dW1", "W1")
        (3, 1)
        >>> piped.delay("F2", "F3"), piped.delay("dX3", "dX2"), piped.delay("W2", "dX2")
        (1, 1, 2)
    """
    for previous, stage in zip([0, *stage_of], stage_of, strict=False):
        integer("layerpipe2", "stage_of", stage, f"[{previous}, {previous + 1}]")
    if not stage_of or stage_of[0] != 0:
        raise ValueError(
            f"layerpipe2(stage_of={list(stage_of)}): must begin at stage 0"
        )
    last, layers = stage_of[-1], len(stage_of)
    numbered = list(enumerate(stage_of, 1))
    step = training_step(layers)
    added = {f"dW{l}": 2 * (last - s) for l, s in numbered}
    computing = [n for n in step.nodes if n != "output"]
    delayed = step.delayed("gradient", added).on_cutset(computing, last)
    moves = {"loss": last}
    for l, s in numbered:
        moves |= {f"F{l}": s, f"W{l}": s}
        moves |= dict.fromkeys((f"dX{l}", f"dW{l}"), 2 * last - s)
    piped = delayed.retimed(moves)
    check_retimed(step, piped, added)
    return delayed, piped


def check_retimed(
    before: DataFlow, after: DataFlow, added: Mapping[str, int] | None = None
) -> None:
    """Check that no loop holds more or fewer registers than it should.

    Sums over all loops agree if and only if the differences on the edges are those of a
    potential, which one walk over the graph decides without listing the loops.

    Args:
        before: a graph.
        after: the same edges with other delays.
        added: registers that gradient edges were given on purpose, by their source.

    Raises:
        ValueError: the edges differ, or a loop's sum does; the message names an edge that
            closes such a loop.
    """
    ends = [[(e.source, e.target, e.kind) for e in g.edges] for g in (before, after)]
    if ends[0] != ends[1]:
        raise ValueError("the two graphs do not have the same edges")
    added = added or {}
    difference = [
        new.delay
        - old.delay
        - (added.get(old.source, 0) if old.kind == "gradient" else 0)
        for old, new in zip(before.edges, after.edges, strict=True)
    ]
    neighbours: dict[str, list[tuple[str, int]]] = {n: [] for n in before.nodes}
    for edge, change in zip(before.edges, difference, strict=True):
        neighbours[edge.source].append((edge.target, change))
        neighbours[edge.target].append((edge.source, -change))
    potential: dict[str, int] = {}
    for start in before.nodes:
        if start in potential:
            continue
        potential[start], waiting = 0, [start]
        while waiting:
            node = waiting.pop()
            for other, change in neighbours[node]:
                if other not in potential:
                    potential[other] = potential[node] + change
                    waiting.append(other)
    for edge, change in zip(before.edges, difference, strict=True):
        excess = change - potential[edge.target] + potential[edge.source]
        if excess:
            raise ValueError(
                f"a loop through {edge.source} -> {edge.target} holds {excess:+d} registers"
            )


def draw(stage_of: Sequence[int]) -> str:
    """The delayed step of these layers and its retiming side by side, as an SVG element.

    Raises:
        ValueError: as :func:`layerpipe2`.
    """
    delayed, piped = layerpipe2(stage_of)
    titles = (
        "Delays on gradient edges and output",
        "Retimed: registers between stages",
    )
    graphs = {
        title: [(e.source, e.target, e.delay, e.kind) for e in graph.edges]
        for title, graph in zip(titles, (delayed, piped), strict=True)
    }
    return retiming_svg(graphs, stage_of)
