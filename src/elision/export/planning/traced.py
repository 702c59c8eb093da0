"""A module as a graph for planning: what a deployed network keeps in memory.

The graph is that of ``torch.export``. As an exporter does, batch norms and rectifiers are
put into the operation before them, reshapes copy nothing, and padding happens inside the
convolution unless it is asked for as a copy.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from elision.common.checks import one_of
from elision.export.planning.graph import Graph, Operation

__all__ = ["PADDINGS", "Constants", "Traced", "traced"]

#: Where a convolution's padding happens. ``"inside"``: the kernel skips what lies outside.
#: ``"copied"``: a padded copy is made first, where the ``SAME`` rule of TFLite does not
#: pad the same sides (its kernels know no other padding).
PADDINGS = ("inside", "copied")

_ALIASES = {
    "alias", "alpha_dropout", "clone", "contiguous", "detach", "dropout", "expand_as",
    "feature_dropout", "flatten", "identity", "lift_fresh_copy", "reshape", "squeeze", "to",
    "_to_copy", "unflatten", "unsqueeze", "_unsafe_view", "view",
}  # fmt: skip
#: Clamps: an integer kernel does them by the range of its output.
_CLAMPS = {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"}
_ELEMENTWISE = _CLAMPS | {
    "abs", "add", "batch_norm", "div", "elu", "exp", "gelu", "hardsigmoid", "hardswish",
    "leaky_relu", "mul", "neg", "pow", "rsqrt", "rsub", "sigmoid", "silu", "softplus",
    "sqrt", "square", "sub", "tanh", "where",
}  # fmt: skip
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution"}
_TRANSPOSED = {f"conv_transpose{n}d" for n in (1, 2, 3)}
_WITH_CLAMP = (
    _CONVOLUTIONS
    | _TRANSPOSED
    | {"linear", "add", "mul", "batch_norm", "avg_pool2d", "mean", "max_pool2d"}
)


class Constants(NamedTuple):
    """Parameters of one operation, which lie in flash.

    Attributes:
        name: of the weight in the module's ``state_dict``, or of the operation.
        weights: elements of the weight.
        channels: output channels, each with a bias and a rescaling; 0: a constant
            without any.
    """

    name: str
    weights: int
    channels: int


class Traced(NamedTuple):
    """A module's graph and constants.

    Attributes:
        graph: tensors in ``bits`` a value.
        constants: parameters by the operation that reads them; shared ones once.
    """

    graph: Graph
    constants: tuple[Constants, ...]


def traced(
    model: nn.Module, example: Any, *, bits: int = 8, padding: str = "inside"
) -> Traced:
    """The graph of a module in evaluation mode on one example.

    Args:
        model: any module that ``torch.export`` reads; its mode is restored.
        example: an input tensor, or a tuple of them; a batch counts as given.
        bits: of a value of an activation.
        padding: one of :data:`PADDINGS`.

    Raises:
        ValueError: an unknown padding, or ``torch.export`` cannot read the module.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten())
        >>> graph = traced(model, torch.zeros(1, 1, 8, 8)).graph
        >>> [(o.name, o.kind, o.macs) for o in graph.operations], graph.outputs
        ([('0', 'conv2d', 2304)], ('conv2d',))
    """
    one_of("arena", "padding", padding, PADDINGS)
    given = example if isinstance(example, tuple) else (example,)
    training = model.training
    try:
        program = torch.export.export(model.eval(), given, strict=False)
    except Exception as error:  # of many kinds; each says where the module is at fault
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"arena: torch.export cannot read {type(model).__name__}: {first[0]}"
        ) from error
    finally:
        model.train(training)
    return _Reader(program, bits, padding).read()


class _Reader:
    """The nodes of an exported program, one after the other."""

    def __init__(self, program: Any, bits: int, padding: str) -> None:
        self.program, self.bits, self.padding = program, bits, padding
        signature = program.graph_signature
        self.parameters = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.inputs = tuple(signature.user_inputs)
        self.sizes: dict[str, int] = {}
        self.operations: list[Operation] = []
        self.value: dict[Any, str] = {}  # node -> tensor that holds it
        self.maker: dict[str, int] = {}  # tensor -> index of its operation
        self.constants: dict[str, Constants] = {}

    def read(self) -> Traced:
        outputs: list[str] = []
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                if node.name in self.inputs and isinstance(node.meta["val"], Tensor):
                    self._tensor(node, node.name, node.meta["val"])
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                flat = tree_leaves(node.args)
                outputs += [self.value[n] for n in flat if n in self.value]
        if not self.operations:
            raise ValueError("arena: the module computes nothing from its input")
        inputs = tuple(n for n in self.inputs if n in self.sizes)
        graph = Graph(
            self.sizes, tuple(self.operations), inputs, tuple(dict.fromkeys(outputs))
        )
        return Traced(graph, tuple(self.constants.values()))

    def _tensor(self, node: Any, name: str, value: Tensor) -> None:
        self.sizes[name] = -(-value.numel() * self.bits // 8)
        self.value[node] = name

    def _call(self, node: Any) -> None:
        kind = _kind(node)
        read = [self.value[n] for n in node.all_input_nodes if n in self.value]
        if kind == "getitem":
            source, index = node.args
            self.value[node] = self.value[source, index]
            return
        if not read:
            return  # computed from parameters alone: a constant
        if kind in _ALIASES or self._fused(node, kind):
            self.value[node] = read[0]
            self._gather(node, kind)
            return
        if kind == "pad" and self._inside(node):
            self.value[node] = read[0]
            return
        made = node.meta["val"]
        writes = []
        if isinstance(made, Tensor):
            self._tensor(node, node.name, made)
            writes = [node.name]
        else:
            for index, part in enumerate(made):
                self._tensor((node, index), f"{node.name}.{index}", part)
                writes.append(f"{node.name}.{index}")
        if kind in _CONVOLUTIONS and self.padding == "copied":
            read[0] = self._padded(node, read[0])
        same = tuple(
            dict.fromkeys(n for n in read if self.sizes[n] == self.sizes[writes[0]])
        )
        self.maker.update(dict.fromkeys(writes, len(self.operations)))
        self.operations.append(
            Operation(
                _label(node),
                kind,
                tuple(dict.fromkeys(read)),
                tuple(writes),
                same if kind in _ELEMENTWISE else (),
                _macs(node, kind),
            )
        )
        self._gather(node, kind)

    def _fused(self, node: Any, kind: str) -> bool:
        """Whether an operation is done by the one before it."""
        source: Any = node.args[0] if node.args else None
        name = self.value.get(source)
        if name is None or name not in self.maker or len(source.users) != 1:
            return False
        before = self.operations[self.maker[name]].kind
        if kind == "batch_norm":
            return before in _CONVOLUTIONS | _TRANSPOSED | {"linear"}
        return kind in _CLAMPS and before in _WITH_CLAMP

    def _inside(self, node: Any) -> bool:
        """Whether a padding of an image feeds convolutions only, which pad themselves."""
        sides = node.args[1]
        value = node.args[3] if len(node.args) > 3 else 0
        return (
            self.padding == "inside"
            and not any(sides[4:])
            and value in (0, None)
            and all(_kind(user) in _CONVOLUTIONS for user in node.users)
        )

    def _padded(self, node: Any, source: str) -> str:
        """The padded copy that a convolution reads where TFLite's rule pads otherwise."""
        stride, padding, dilation = (
            _argument(node, i, name, 1 if i != 4 else 0)
            for i, name in ((3, "stride"), (4, "padding"), (5, "dilation"))
        )
        value, weight = node.args[0].meta["val"], node.args[1].meta["val"]
        images, kernel = value.shape[2:], weight.shape[2:]
        made = node.meta["val"].shape[2:]
        if isinstance(padding, str):
            return source
        axes = len(images)
        stride, padding, dilation = (
            _per_axis(v, axes) for v in (stride, padding, dilation)
        )
        same = all(
            _same(i, k, s, d, o) == p
            for i, k, s, d, o, p in zip(
                images, kernel, stride, dilation, made, padding, strict=True
            )
        )
        if not any(padding) or same:
            return source
        sides = [i + 2 * p for i, p in zip(images, padding, strict=True)]
        elements = math.prod(value.shape[:2]) * math.prod(sides)
        name = f"{node.name}_padded"
        self.sizes[name] = -(-elements * self.bits // 8)
        self.operations.append(
            Operation(f"{_label(node)}.pad", "pad", (source,), (name,))
        )
        return name

    def _gather(self, node: Any, kind: str) -> None:
        """Note the parameters that an operation reads."""
        own = [n for n in node.all_input_nodes if n.name in self.parameters]
        if kind == "batch_norm":
            if not self._fused(node, kind):  # else they are in the layer before
                channels = own[0].meta["val"].numel()
                self.constants.setdefault(
                    node.name, Constants(_label(node), 0, channels)
                )
            return
        if not own:
            return
        key = self.parameters[own[0].name]
        weight = own[0].meta["val"]
        channels = 0
        if kind in _CONVOLUTIONS | {"linear"}:
            channels = weight.shape[0]
        elif kind in _TRANSPOSED:
            channels = node.meta["val"].shape[1]
        others = 0 if channels else sum(n.meta["val"].numel() for n in own[1:])
        self.constants.setdefault(
            key, Constants(key, weight.numel() + others, channels)
        )


def _kind(node: Any) -> str:
    """The operation's name without its namespace, overload and final underscore."""
    if node.op != "call_function":
        return node.op
    schema = getattr(node.target, "_schema", None)
    name = schema.name.split("::")[-1] if schema else node.target.__name__
    return name if name.startswith("_") else name.rstrip("_")


def _label(node: Any) -> str:
    """Name of the module that an operation belongs to, or the node's own."""
    stack = node.meta.get("nn_module_stack")
    path = list(stack.values())[-1][0] if stack else ""
    kind = _kind(node)
    if not path or kind not in _CONVOLUTIONS | _TRANSPOSED | {"linear", "batch_norm"}:
        return node.name
    return path


def _macs(node: Any, kind: str) -> int:
    """Multiply-accumulates; padded positions count as others."""
    made = node.meta["val"]
    first, second = (_meta(node, i) for i in (0, 1))
    if kind in _CONVOLUTIONS:
        return made.numel() * second[0].numel()
    if kind in _TRANSPOSED:
        return first.numel() * second[0].numel()
    if kind == "linear":
        return made.numel() * second.shape[1]
    if kind in ("matmul", "mm", "bmm"):
        return made.numel() * first.shape[-1]
    if kind == "scaled_dot_product_attention":
        queries, keys = first.shape[-2], second.shape[-2]
        depth = first.shape[-1] + node.args[2].meta["val"].shape[-1]
        return first[..., 0, 0].numel() * queries * keys * depth
    return 0


def _meta(node: Any, index: int) -> Any:
    """Shape and type of an argument that is a node, or None."""
    given = node.args[index] if index < len(node.args) else None
    return getattr(given, "meta", {}).get("val")


def _argument(node: Any, index: int, name: str, default: Any) -> Any:
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def _per_axis(value: int | Sequence[int], axes: int) -> list[int]:
    if isinstance(value, int):
        return [value] * axes
    return list(value) * (axes if len(value) == 1 else 1)


def _same(image: int, kernel: int, stride: int, dilation: int, made: int) -> int:
    """Padding before the first pixel by the ``SAME`` rule, or -1 if its size differs."""
    if made != -(-image // stride):
        return -1
    total = max((made - 1) * stride + dilation * (kernel - 1) + 1 - image, 0)
    return total // 2
