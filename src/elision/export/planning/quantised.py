"""A quantised graph as a graph for planning: one byte a code."""

from typing import Any

from elision.export.graph import QuantisedGraph
from elision.export.operations import (
    Add,
    Convolution,
    Linear,
    Lookup,
    Multiply,
    Reshape,
)
from elision.export.planning.arena import Arena, plan
from elision.export.planning.graph import Graph, Operation
from elision.export.planning.traced import Constants, Traced

__all__ = ["from_quantised", "holder", "plan_quantised"]


def plan_quantised(graph: QuantisedGraph, *, in_place: bool = True) -> Arena:
    """The memory plan of a quantised graph, which is that of its C program.

    Args:
        graph: int8 weights and activations.
        in_place: additions, products and lookups may write over what they read.

    Raises:
        ValueError: the graph has no operation but reshapes.

    Example:
        >>> import torch
        >>> from elision.export.quantise import quantised
        >>> layers = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.Linear(9, 2))
        >>> plan_quantised(quantised(layers, torch.randn(8, 4))).arena_bytes
        13
    """
    planned, constants = from_quantised(graph)
    return plan(planned, constants, in_place=in_place)


def from_quantised(graph: QuantisedGraph) -> Traced:
    """Tensors and constants of a quantised graph, as its C program holds them.

    Additions, products of equal shapes and lookups may be in place; a reshape is the
    tensor that it reads under another name.

    Raises:
        ValueError: the graph has no operation but reshapes.

    Example:
        >>> import torch
        >>> from elision.export.quantise import quantised
        >>> graph = quantised(torch.nn.Linear(4, 2), torch.randn(8, 4))
        >>> found = from_quantised(graph)
        >>> found.graph.sizes, found.constants
        ({'input': 4, 'linear': 2}, (Constants(name='linear', weights=8, channels=2),))
    """
    holds = holder(graph)
    names = dict.fromkeys(holds.values())
    sizes = {name: graph.values[name].bytes for name in names}
    operations, constants = [], []
    for operation in graph.operations:
        if isinstance(operation, Reshape):
            continue
        reads = [holds[name] for name in operation.inputs]
        whole = [n for n in reads if sizes[n] == sizes[operation.name]]
        over = whole if isinstance(operation, (Add, Multiply, Lookup)) else []
        operations.append(
            Operation(
                operation.name,
                operation.kind,
                tuple(dict.fromkeys(reads)),
                (operation.name,),
                tuple(dict.fromkeys(over)),
                _macs(graph, operation),
            )
        )
        if isinstance(operation, (Convolution, Linear)):
            weight = operation.weight
            constants.append(Constants(operation.name, weight.numel(), len(weight)))
        elif isinstance(operation, Lookup):
            constants.append(Constants(operation.name, operation.table.numel(), 0))
    planned = Graph(
        sizes, tuple(operations), (holds[graph.input],), (holds[graph.output],)
    )
    return Traced(planned, tuple(constants))


def holder(graph: QuantisedGraph) -> dict[str, str]:
    """Name of the tensor that holds a value, by the value's name."""
    holds = {graph.input: graph.input}
    for operation in graph.operations:
        same = isinstance(operation, Reshape)
        holds[operation.name] = holds[operation.inputs[0]] if same else operation.name
    return holds


def _macs(graph: QuantisedGraph, operation: Any) -> int:
    made = graph.values[operation.name].bytes
    if isinstance(operation, (Convolution, Linear)):
        return made * operation.weight[0].numel()
    return 0
