"""Saved tensors of a compiled model, packed inside its compiled graphs.

A compiled region calls the unpack hooks of all that it saved at once, before it runs, so
that ordinary hooks save nothing there (pytorch/pytorch#148222). Hooks given as graphs are
instead put at the end of the forward graph and the beginning of the backward graph, and
compiled with them (pytorch/pytorch#150032). While that happens the backward graph is at
hand, and with it the readers of every saved tensor: roles are read off it as the eager
saver reads them off autograd's.

Only codecs that are plain functions of tensors can be traced. What runs outside of the
compiled regions is kept as it is.
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn

from elision.memory.codecs.traced import traced
from elision.memory.policies.base import EXACT_RULES, Policy, Rule
from elision.memory.saved.codec import Codec, Guarantee, TracedCodec
from elision.memory.saved.ledger import Ledger, StorageRecord
from elision.memory.saved.roles import SMOOTH_ROLES, Role, Slot
from elision.memory.saved.token import Token

__all__ = ["TRACEABLE", "compiled_parts", "packed_in_graphs"]

#: The presets that can be traced.
TRACEABLE = ("none", "exact", "int8", "bits(n)", "fp8")

#: Operator of the backward graph and place of its argument -> role. Like the eager
#: table: what is not in it is never touched.
_READERS: dict[tuple[str, int], Role] = {
    ("convolution_backward", 1): Role.LINEAR_INPUT,
    ("mm", 0): Role.LINEAR_INPUT,
    ("mm", 1): Role.LINEAR_INPUT,
    ("bmm", 0): Role.MULTIPLICAND,
    ("bmm", 1): Role.MULTIPLICAND,
    ("_scaled_dot_product_flash_attention_for_cpu_backward", 1): Role.ATTENTION,
    ("_scaled_dot_product_flash_attention_for_cpu_backward", 2): Role.ATTENTION,
    ("_scaled_dot_product_flash_attention_for_cpu_backward", 3): Role.ATTENTION,
    ("_scaled_dot_product_flash_attention_for_cpu_backward", 4): Role.ATTENTION_RESULT,
    ("_softmax_backward_data", 1): Role.PROBABILITY,
    ("native_batch_norm_backward", 1): Role.NORM_INPUT,
    ("native_layer_norm_backward", 1): Role.NORM_INPUT,
    ("native_group_norm_backward", 1): Role.NORM_INPUT,
    ("sub", 0): Role.NORM_INPUT,  # a norm that was taken apart: x minus its mean
    ("gelu_backward", 1): Role.ACTIVATION,
    ("silu_backward", 1): Role.ACTIVATION,
    ("mish_backward", 1): Role.ACTIVATION,
    ("softplus_backward", 1): Role.ACTIVATION,
    ("tanh_backward", 1): Role.ACTIVATION,
    ("sigmoid_backward", 1): Role.ACTIVATION,
    ("threshold_backward", 1): Role.THRESHOLD,
    ("le", 0): Role.THRESHOLD,
    ("max_pool2d_with_indices_backward", 1): Role.SHAPE,
    ("avg_pool2d_backward", 1): Role.SHAPE,
    ("max_pool2d_with_indices_backward", 7): Role.POOL_INDICES,
}

#: Operators that show the same values in another shape or type.
_VIEWS = frozenset(
    {"view", "_unsafe_view", "reshape", "permute", "transpose", "t", "detach", "alias"}
    | {"expand", "unsqueeze", "squeeze", "clone", "_to_copy", "convert_element_type"}
)

#: Operators whose result jumps with their argument.
_COMPARISONS = frozenset({"le", "lt", "ge", "gt", "eq", "ne", "sign", "sgn"})


@dataclass
class _Saved:
    """One saved tensor of a compiled graph, and the decision on it.

    ``sized``: whether its sizes go along with its packed form.
    """

    slot: Slot
    shape: tuple[int, ...]
    nbytes: int
    stored_bytes: int
    codec: str = "kept"
    guarantee: Guarantee = Guarantee.EXACT
    chosen: TracedCodec | None = None
    sized: bool = False


@dataclass(eq=False)
class _Hooks:
    """A pair of graphs that stand for the hooks of one policy.

    Compiled code is only valid for the very hooks that it was compiled with, so they
    are made once per model and policy.

    Attributes:
        policy: decides.
        saved: every saved tensor of the graphs that were compiled so far.
        told: whether the user was told that there is none.
        pack, unpack: the hooks.
    """

    policy: Policy
    saved: list[_Saved] = field(default_factory=list)
    told: bool = False
    _of_graph: "WeakKeyDictionary[fx.Graph, dict[str, _Saved]]" = field(
        default_factory=WeakKeyDictionary
    )
    pack: fx.GraphModule = field(init=False)
    unpack: fx.GraphModule = field(init=False)

    def __post_init__(self) -> None:
        self.pack, self.unpack = _one_call(self._pack), _one_call(self._unpack)

    def _pack(self, tensor: torch.Tensor) -> Any:
        place = _place()
        if place is None:  # not in a compiled graph
            return Token(tensor)
        found = self._decide(tensor, *place)
        if found.chosen is None:
            return [tensor]
        parts = found.chosen.pack(tensor)
        found.stored_bytes = sum(_hint(p.numel()) * p.element_size() for p in parts)
        found.sized = _changes(tensor)
        if found.sized:
            # The graph that unpacks knows the sizes of its arguments and no others.
            parts.append(tensor.new_empty((0, *tensor.shape)))
        return parts

    def _unpack(self, parts: Any) -> torch.Tensor:
        if isinstance(parts, Token):
            return parts.restore()
        place = _place()
        assert place is not None
        node, graph = place
        found = self._of_graph[graph][node.name]
        if found.chosen is None:
            return parts[0]
        like = node.meta["val"]
        if not found.sized:
            return found.chosen.unpack(parts, like, like.shape)
        *parts, empty = parts
        return found.chosen.unpack(parts, like, empty.shape[1:])

    def _decide(self, tensor: torch.Tensor, node: fx.Node, graph: fx.Graph) -> _Saved:
        decided = self._of_graph.setdefault(graph, {})
        if node.name in decided:
            return decided[node.name]
        role, relu = _role(node, graph)
        slot = Slot(_operator(node), "result", role, _module(node), nonnegative=relu)
        shape = tuple(_hint(size) for size in tensor.shape)
        nbytes = math.prod(shape) * tensor.element_size()
        found = _Saved(slot, shape, nbytes, nbytes)
        if nbytes:
            for codec in self.policy.codecs_for(slot, tensor):
                form = traced([codec], relu)
                if form is not None:
                    found.chosen = form
                    found.codec, found.guarantee = f"{codec}, traced", codec.guarantee
                    break
        decided[node.name] = found
        self.saved.append(found)
        return found


_HOOKS: "WeakKeyDictionary[nn.Module, dict[tuple[Rule, ...], _Hooks]]" = (
    WeakKeyDictionary()
)


def compiled_parts(modules: Mapping[str, nn.Module]) -> list[str]:
    """The paths of those ``modules`` that are compiled."""
    return [
        path or "the model"
        for path, module in modules.items()
        if type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
    ]


@contextmanager
def packed_in_graphs(
    model: nn.Module, policy: Policy, ledger: Ledger
) -> Iterator[None]:
    """Compile the graphs that run in the block with the policy's codecs in them.

    Args:
        model: has compiled parts.
        policy: of plain rules whose codecs can be traced.
        ledger: filled in when the block is left.

    Raises:
        RuntimeError: the policy cannot be traced, or not with this version of PyTorch.

    Warns:
        UserWarning: once, that no graph was seen, with gradients enabled.
    """
    untraceable = [] if type(policy) is Policy else [policy.name]
    for rule in policy.rules:
        if rule not in EXACT_RULES and rule.codecs and not _traceable(rule.codecs):
            untraceable += [str(codec) for codec in rule.codecs]
    if untraceable:
        parts = compiled_parts(dict(model.named_modules()))
        raise RuntimeError(
            f"elision.memory.saver: {', '.join(parts[:3])} is compiled, "
            f"and {', '.join(untraceable)} cannot be traced into a compiled graph. "
            f"These can: {', '.join(TRACEABLE)}. Use one of them, or the saver on the "
            "uncompiled module."
        )
    _place()  # raises now rather than in the middle of a compilation
    made = _HOOKS.setdefault(model, {})
    if policy.rules not in made:
        made[policy.rules] = _Hooks(policy)
    hooks = made[policy.rules]
    with torch.autograd.graph.saved_tensors_hooks(hooks.pack, hooks.unpack):
        yield
    if not hooks.saved and not hooks.told and torch.is_grad_enabled():
        hooks.told = True
        warnings.warn(
            "elision.memory.saver: no part of the compiled model ran in a compiled graph "
            "that saves tensors, so nothing is packed. model.compile() of an "
            "nn.Sequential compiles nothing; torch.compile(model) does",
            stacklevel=3,
        )
    for saved in hooks.saved:
        kept = saved.chosen is None
        storage = StorageRecord(saved.nbytes, held=kept)
        ledger.storages.append(storage)
        ledger.add(
            saved.slot,
            saved.shape,
            saved.nbytes,
            storage,
            codec=saved.codec,
            guarantee=saved.guarantee,
            stored_bytes=0 if kept else saved.stored_bytes,
            bound=None,
        )


def _traceable(codecs: tuple[Codec, ...]) -> bool:
    """True if every codec has a traced form, the optional ones excepted."""
    needed = [codec for codec in codecs if not codec.optional_in_graphs]
    return all(traced([codec], relu=False) is not None for codec in needed)


def _one_call(function: Any) -> fx.GraphModule:
    """A graph that calls a function of one argument."""
    graph = fx.Graph()
    graph.output(graph.call_function(function, (graph.placeholder("saved"),)))
    return fx.GraphModule({}, graph)


def _place() -> tuple[fx.Node, fx.Graph] | None:
    """The node that is being saved and the backward graph; None outside of a graph.

    Raises:
        RuntimeError: this version of PyTorch does not record the node.
    """
    try:
        from torch._functorch._aot_autograd.graph_compile import (
            _get_saved_tensor_hook_context,
        )
    except ImportError as error:
        raise RuntimeError(
            "elision.memory.saver can pack inside compiled graphs only where PyTorch says "
            f"what is saved there, which {torch.__version__} does not: use the saver on "
            "the uncompiled module"
        ) from error
    found = _get_saved_tensor_hook_context()
    return None if found is None else (found["_node"], found["_bw_graph"])


def _changes(tensor: torch.Tensor) -> bool:
    """Whether a graph is for more than one size of a tensor."""
    return any(isinstance(size, torch.SymInt) for size in tensor.shape)


def _hint(size: int | torch.SymInt) -> int:
    """A size; for a symbolic one, its value at tracing, 0 if values decide on it."""
    return size if isinstance(size, int) else int(size.node.hint or 0)


def _operator(node: fx.Node) -> str:
    """Name of a node's operator without its overload, ``"convolution_backward"``."""
    return getattr(node.target, "_opname", getattr(node.target, "__name__", "")) or ""


def _module(node: fx.Node) -> str:
    """Path of the module that the node comes from."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(next(reversed(stack.values()))[0]) if stack else ""
    path = re.sub(r"\._modules\['([^']+)'\]", r".\1", path)
    return re.sub(r"^L\['\w+'\]\.?", "", path)


def _role(node: fx.Node, backward: fx.Graph) -> tuple[Role, bool]:
    """Role of a saved tensor, and whether a ReLU's mask is to be read from it."""
    source = _source(node)
    if source.op == "placeholder":  # a parameter, its cast, or the batch
        return Role.OTHER, False
    dtype = node.meta["val"].dtype
    if dtype is torch.bool:
        return Role.BOOLEAN, False
    inputs = [n for n in backward.find_nodes(op="placeholder") if n.name == node.name]
    roles = {role for n in inputs for role in _roles_of_readers(n)}
    if roles == {Role.POOL_INDICES}:
        return Role.POOL_INDICES, False
    if not roles or not dtype.is_floating_point:
        return Role.OTHER, False
    if roles == {Role.SHAPE}:
        return Role.SHAPE, False
    smooth = sorted(roles & SMOOTH_ROLES, key=lambda role: role.value)
    masked = Role.THRESHOLD in roles
    known = roles <= SMOOTH_ROLES | {Role.THRESHOLD, Role.SHAPE}
    if not known or (masked and _operator(source) != "relu"):
        return Role.OTHER, False
    return (smooth[0] if smooth else Role.THRESHOLD), masked


def _source(node: fx.Node) -> fx.Node:
    """The node whose values these are."""
    while node.op == "call_function" and _operator(node) in _VIEWS:
        node = node.all_input_nodes[0]
    return node


def _roles_of_readers(node: fx.Node) -> Iterator[Role]:
    """Roles of a node: the needs of all readers of it or of a view of it."""
    for reader in node.users:
        name = _operator(reader)
        if name in _VIEWS:
            yield from _roles_of_readers(reader)
            continue
        for place, argument in enumerate(reader.args):
            if argument is node:
                role = _READERS.get((name, place), Role.OTHER)
                zero = reader.args[-1] == 0 if role is Role.THRESHOLD else True
                smooth = name != "sub" or not _reaches_comparison(reader)
                yield role if zero and smooth else Role.OTHER


def _reaches_comparison(node: fx.Node) -> bool:
    """True if anything computed from a node is compared with something."""
    seen, stack = set(), [node]
    while stack:
        at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        if _operator(at) in _COMPARISONS:
            return True
        stack += at.users
    return False
