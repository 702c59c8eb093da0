"""A plain network as the steps that become operations: torch's exported graph, grouped."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["Program", "Step", "traced"]

#: Calls that change no value in evaluation mode.
_NOTHING = {
    "alias", "clone", "contiguous", "detach", "dropout", "dropout_", "feature_dropout",
    "lift_fresh_copy", "_assert_tensor_metadata",
}  # fmt: skip

#: Calls that clamp, and their limits where they do not give them.
_CLAMPS = {
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "hardtanh": (-1.0, 1.0),
    "clamp": (-math.inf, math.inf),
    "clamp_min": (-math.inf, math.inf),
}

#: Calls with a sum or a product of their own, into whose end a clamp goes.
_CLAMPABLE = (
    "conv2d",
    "linear",
    "add",
    "mul",
    "mean",
    "adaptive_avg_pool2d",
    "avg_pool2d",
)

#: Last index of a slice that has no end.
_NO_END = 2**63 - 1


@dataclass(eq=False)
class Step:
    """One call of the graph with the clamp that follows it.

    Attributes:
        name: of the layer, or of the block and the call; unique.
        call: name of the call, as ``conv2d``.
        node: the call.
        reads: names of the steps, or ``input``, whose values it reads.
        low, high: limits of the clamp, infinite without one.
        last: the node whose value the step is known by: the call, or its clamp.

    Example:
        >>> traced(nn.Linear(4, 2), torch.ones(2, 4)).steps[0].shape
        (2,)
    """

    name: str
    call: str
    node: fx.Node
    reads: tuple[str, ...]
    last: fx.Node
    low: float = -math.inf
    high: float = math.inf

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its value, without the batch."""
        return tuple(int(n) for n in self.last.meta["val"].shape[1:])


class Program:
    """Steps of a network, and the network's graph, which can be run with changes.

    Attributes:
        name: of the network's class.
        steps: in order.
        shape: of the input, without the batch.
        output: name of the step whose value is the result.
        tensors: weights and buffers, by the name of the graph's node.

    Example:
        >>> program = traced(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), torch.ones(2, 4))
        >>> [(step.name, step.call, step.low) for step in program.steps]
        [('0', 'linear', 0.0)]
    """

    def __init__(self, name: str, graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
        self.name, self.tensors = name, tensors
        self._graph = graph
        self.steps: list[Step] = []
        self._known: dict[fx.Node, str] = {}
        for node in graph.nodes:
            if node.op == "placeholder" and node.name not in tensors:
                self._input = node
                self._known[node] = "input"
            elif node.op == "call_function":
                self._add(node)
            elif node.op == "output":
                (result,) = node.args[0]
                if result not in self._known or not self.steps:
                    raise ValueError(f"{name}: the output is no step of the network")
                self.output = self._known[result]
        self.shape = tuple(int(n) for n in self._input.meta["val"].shape[1:])

    def _add(self, node: fx.Node) -> None:
        """Take a call as a step, as part of the step before it, or as nothing."""
        call = _call(node)
        sources = [n for n in node.all_input_nodes if n in self._known]
        if not sources or call == "sym_size":
            return
        known = self._known[sources[0]]
        if call in _NOTHING or (call == "slice" and _is_whole(node)):
            self._known[node] = known
            return
        before = next((s for s in self.steps if s.name == known), None)
        if (
            before is not None
            and call.rstrip("_") in _CLAMPS
            and before.call in _CLAMPABLE
            and before.node is before.last
            and len(before.node.users) == 1
        ):
            before.low, before.high = limits(node)
            before.last = node
            self._known[node] = known
            return
        name = self._name(node, call)
        reads = tuple(self._known[n] for n in _tensors_read(node) if n in self._known)
        self.steps.append(Step(name, call, node, reads, node))
        self._known[node] = name

    def _name(self, node: fx.Node, call: str) -> str:
        place = place_of(node)
        if call not in ("conv2d", "linear") or not place:
            place = f"{place}.{call}" if place else call
        taken = {s.name for s in self.steps}
        names = (place if i == 1 else f"{place}-{i}" for i in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    @torch.no_grad()
    def run(
        self,
        inputs: Tensor,
        after: Callable[[str, Tensor], Tensor | None],
        tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Run the network and look at, or replace, the value of every step.

        Args:
            inputs: ``(N, *shape)``; in the dtype of the tensors.
            after: called with ``input`` or a step's name, and its value; what it returns,
                if anything, stands in the value's place.
            tensors: in place of those of the network.

        Returns:
            The output.
        """
        values: dict[fx.Node, Any] = {}
        own = self.tensors if tensors is None else tensors
        last = {s.last: s.name for s in self.steps} | {self._input: "input"}
        left = {node: len(node.users) for node in self._graph.nodes}
        for node in self._graph.nodes:
            if node.op == "output":
                return values[node.args[0][0]]
            if node.op == "placeholder":
                value = inputs if node is self._input else own[node.name]
            elif node.op == "call_function":
                value = _value(node, values)
            else:
                raise ValueError(f"{self.name}: {node.format_node()} is not understood")
            if node in last:
                changed = after(last[node], value)
                value = value if changed is None else changed
            values[node] = value
            for source in node.all_input_nodes:
                left[source] -= 1
                if not left[source]:
                    values.pop(source, None)
        raise AssertionError


def traced(model: nn.Module, example: Tensor) -> Program:
    """The program of a plain model in evaluation mode, by ``torch.export``.

    Args:
        model: whose input and output are one tensor each, the batch first.
        example: a batch of inputs, ``(N, *shape)``.

    Raises:
        ValueError: the model has a recurrent layer, or is not exportable; the message
            says what torch says.

    Example:
        >>> traced(nn.Linear(4, 2), torch.ones(1, 4)).output
        'linear'
    """
    name = type(model).__name__
    loops = [
        f"{path or name} ({type(module).__name__})"
        for path, module in model.named_modules()
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase))
    ]
    if loops:
        raise ValueError(
            f"{name} cannot be exported as integers: {', '.join(loops)}; a recurrent layer "
            "is a loop, and the graph has none"
        )
    # Two examples: a batch of one would be taken for a constant.
    batch = example[:1].expand(2, *example.shape[1:]).contiguous()
    try:
        exported = torch.export.export(
            model.eval(), (batch,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
        )
    except Exception as error:  # torch raises errors of many kinds here
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{name}: torch.export cannot trace it: {reason}") from error
    signature = exported.graph_signature
    state = {**exported.state_dict, **exported.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors = {node: state[key].detach() for node, key in names.items()}
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise ValueError(f"{name}: must have one input and one output tensor")
    return Program(name, exported.graph, tensors)


def place_of(node: fx.Node) -> str:
    """Path of the module that made a call; empty for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")


def limits(node: fx.Node) -> tuple[float, float]:
    """Limits of a clamping call."""
    low, high = _CLAMPS[_call(node).rstrip("_")]
    given = [*node.args[1:], None, None]
    names = [a.name for a in node.target._schema.arguments[1:]]  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
    for name, value in [*zip(names, given, strict=False), *node.kwargs.items()]:
        if value is not None:
            low = float(value) if name in ("min", "min_val") else low  # pyright: ignore[reportArgumentType]
            high = float(value) if name in ("max", "max_val") else high  # pyright: ignore[reportArgumentType]
    return low, high


def _call(node: fx.Node) -> str:
    """``conv2d`` of ``aten.conv2d.default``."""
    return str(getattr(node.target, "_opname", getattr(node.target, "__name__", "")))


def _is_whole(node: fx.Node) -> bool:
    """Whether a slice keeps all of its axis."""
    axis, start, stop, step = [
        *node.args[1:],
        *(0, 0, _NO_END, 1)[len(node.args) - 1 :],
    ]
    size = node.args[0].meta["val"].shape[axis]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    whole = stop is None or stop == _NO_END or (isinstance(size, int) and stop >= size)  # pyright: ignore[reportOperatorIssue]
    return not start and whole and step == 1


def _tensors_read(node: fx.Node) -> list[fx.Node]:
    """Arguments of a call that are nodes, in order and as often as they are given."""
    found: list[fx.Node] = []
    fx.map_arg(node.args, found.append)
    return found


def _value(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    args = fx.map_arg(node.args, values.__getitem__)
    kwargs = fx.map_arg(node.kwargs, values.__getitem__)
    return node.target(*args, **kwargs)  # pyright: ignore[reportCallIssue]
