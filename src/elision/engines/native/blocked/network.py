"""A whole network in the blocked layout.

``blocked`` traces a model and keeps activations in the kernels' layout from the first
sparse convolution on: through batch normalisation, activations, max pooling, sums and
concatenations; normalisation, residual sum and ReLU become one pass where they follow
one another. Whatever else the model does is done by torch, and the layout is changed at
the border. The new module shares parameters and buffers with the model, under the same
names.
"""

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from elision.engines.native import library
from elision.engines.native.blocked.blocked_layers import (
    BlockedConv2d,
    BlockedLinear,
    BlockedMaxPool,
    BlockedNorm,
    Sparsity,
    as_blocked,
    pair,
)

__all__ = ["blocked", "can_block"]

_TO_BLOCKED = torch.ops.elision.to_blocked.default
_FROM_BLOCKED = torch.ops.elision.from_blocked.default

#: Modules that treat every value alike, in whatever layout.
_ELEMENTWISE = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Identity,
)


def can_block(module: nn.Module) -> bool:
    """Whether a layer has a blocked form: ungrouped, padded with zeros or not at all."""
    if isinstance(module, nn.Linear):
        return True
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and math.prod(module.kernel_size) <= library.MOST_TAPS
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def blocked(
    model: nn.Module,
    sparsity: Mapping[str, Sparsity],
    x: Tensor,
    *,
    method: str = "forward",
) -> fx.GraphModule:
    """The model with its sparse layers, and what lies between, blocked.

    Float32 on the CPU. A layer that ``sparsity`` does not name, or that has no blocked
    form, is left to torch.

    Args:
        model: a module of one input that ``torch.fx`` can trace (no control flow that
            depends on data).
        sparsity: what is left out, by name of the layer.
        x: an input; the result is for inputs of this shape.
        method: name of the model's method that is traced.

    Returns:
        A module that computes the same function with the same parameters.

    Raises:
        ValueError: a name is not a ``Conv2d`` or ``Linear`` of the model.
        BuildError: the native kernels are not available here.
        Exception: whatever ``torch.fx`` raises at a model that it cannot trace.
    """
    library.load()
    modules = dict(model.named_modules())
    for name in sparsity:
        if not isinstance(modules.get(name), (nn.Conv2d, nn.Linear)):
            raise ValueError(f"sparsity names {name!r}, which is no Conv2d or Linear")
    made = fx.GraphModule(model, _Tracer(method).trace(model))
    _measure_shapes(made, x)
    _Rewriter(made, sparsity).run()
    made.training = model.training
    return made


class _Tracer(fx.Tracer):
    def __init__(self, method: str) -> None:
        super().__init__()
        self.traced_func_name = method

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layers = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
        return isinstance(m, layers) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Notes the shape of every tensor of a graph, computing none."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Layers with state or transforms of their own only say how large they are."""
        module = self.fetch_attr(target)
        if isinstance(module, nn.Conv2d):
            return nn.Conv2d._conv_forward(module, args[0], module.weight, None)
        if isinstance(module, nn.Linear):
            return F.linear(args[0], module.weight)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return torch.empty_like(args[0])
        return super().call_module(target, args, kwargs)


def _measure_shapes(module: fx.GraphModule, x: Tensor) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        _Shapes(module).run(mode.from_tensor(x.detach()))


def _is_relu(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    return node.target in {F.relu, torch.relu, "relu", "relu_"}


def _is_add(node: fx.Node) -> bool:
    plain = {operator.add, operator.iadd, torch.add, "add", "add_"}
    tensors = [a for a in node.args if isinstance(a, fx.Node)]
    two = len(tensors) == len(node.args) == 2
    return two and node.target in plain


def _is_channel_cat(node: fx.Node) -> bool:
    if node.target is not torch.cat or not isinstance(node.args[0], (list, tuple)):
        return False
    return (node.kwargs.get("dim") if len(node.args) == 1 else node.args[1]) == 1  # pyright: ignore[reportReturnType]


def _in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if not (node.args and isinstance(node.args[0], fx.Node)):
        return False
    if node.op == "call_module":
        inplace = getattr(modules[str(node.target)], "inplace", False)
        return inplace is True
    if node.kwargs.get("inplace", False):
        return True
    return node.target in {operator.iadd, "add_", "relu_"}


def _plain_max_pool(module: nn.Module) -> bool:
    return (
        type(module) is nn.MaxPool2d
        and not module.return_indices
        and pair(module.dilation) == [1, 1]
    )


class _Rewriter:
    """One pass over a graph; ``inside`` maps a node to its blocked value."""

    def __init__(
        self, module: fx.GraphModule, sparsity: Mapping[str, Sparsity]
    ) -> None:
        self.module, self.graph, self.sparsity = module, module.graph, sparsity
        self.modules = dict(module.named_modules())
        self.inside: dict[fx.Node, fx.Node] = {}
        self.outside: dict[fx.Node, fx.Node] = {}

    def run(self) -> None:
        """Rewrite the graph of the module."""
        self._untangle()
        for node in list(self.graph.nodes):
            with self.graph.inserting_after(node):
                new = self._blocked(node)
            if new is not None:
                self.inside[node] = new
            else:
                self._leave(node)
        self._fuse()
        self.graph.eliminate_dead_code()
        self.graph.lint()
        self.module.recompile()

    def _untangle(self) -> None:
        """Let what reads a tensor after it was changed in place read the change.

        The operations put in place of those return new tensors.
        """
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        for node in self.graph.nodes:
            if _in_place(node, self.modules):
                node.args[0].replace_all_uses_with(
                    node,
                    delete_user_cb=lambda user, node=node: order[user] > order[node],
                )

    def _blocked(self, node: fx.Node) -> fx.Node | None:
        """The node's value in the blocked layout, if it can be had there."""
        if node.op not in {"call_module", "call_function", "call_method"}:
            return None
        inputs = node.all_input_nodes
        if not inputs or len(node.meta.get("shape", ())) != 4:
            return None
        if node.op == "call_module" and not node.kwargs:
            return self._blocked_module(node, inputs[0])
        if not all(i in self.inside for i in inputs):
            return None
        if _is_relu(node, self.modules):
            return self.graph.call_function(torch.relu, (self.inside[inputs[0]],))
        shapes = {i.meta.get("shape") for i in inputs}
        if _is_add(node) and len(shapes) == 1:
            terms = tuple(self.inside[i] for i in node.args)  # pyright: ignore[reportArgumentType]
            return self.graph.call_function(torch.add, terms)
        if _is_channel_cat(node):
            parts = [self.inside[i] for i in node.args[0]]  # pyright: ignore
            return self.graph.call_function(torch.cat, (parts, 1))
        return None

    def _blocked_module(self, node: fx.Node, x: fx.Node) -> fx.Node | None:
        name = str(node.target)
        module = self.modules[name]
        if isinstance(module, nn.Conv2d) and name in self.sparsity:
            return self._module(node, x, BlockedConv2d) if can_block(module) else None
        if type(module) is nn.BatchNorm2d:
            return self._module(node, x, BlockedNorm)
        if x not in self.inside:
            return None
        if _plain_max_pool(module):
            return self._module(node, x, BlockedMaxPool)
        if _is_relu(node, self.modules):
            return self.graph.call_function(torch.relu, (self.inside[x],))
        if type(module) is nn.Identity:
            return self.inside[x]
        if isinstance(module, _ELEMENTWISE):
            return self.graph.call_module(name, (self.inside[x],))
        return None

    def _module(self, node: fx.Node, x: fx.Node, kind: type[nn.Module]) -> fx.Node:
        """A call of the blocked form of a module, with the batch size beside its input."""
        name = str(node.target)
        if x not in self.inside:
            with self.graph.inserting_before(node):
                self.inside[x] = self.graph.call_function(_TO_BLOCKED, (x,))
        self._replace(name, kind)
        images = x.meta["shape"][0]
        return self.graph.call_module(name, (self.inside[x], images))

    def _replace(self, name: str, kind: type[nn.Module]) -> None:
        if not isinstance(self.module.get_submodule(name), kind):
            made = as_blocked(self.modules[name], kind)
            if name in self.sparsity:
                made.sparsity = self.sparsity[name]  # pyright: ignore[reportArgumentType]
            self.module.set_submodule(name, made)

    def _leave(self, node: fx.Node) -> None:
        """Give a node that torch computes its blocked inputs in torch's layout."""
        name = str(node.target)
        called = self.modules[name] if node.op == "call_module" else None
        if isinstance(called, nn.Linear) and name in self.sparsity:
            self._replace(name, BlockedLinear)

        def plain(x: fx.Node) -> fx.Node:
            if x not in self.inside or self.inside[x].target is _TO_BLOCKED:
                return x
            if x not in self.outside:
                with self.graph.inserting_before(node):
                    self.outside[x] = self.graph.call_function(
                        _FROM_BLOCKED, (self.inside[x], x.meta["shape"][0])
                    )
            return self.outside[x]

        node.args = fx.map_arg(node.args, plain)
        node.kwargs = fx.map_arg(node.kwargs, plain)

    def _fuse(self) -> None:
        """[Bias,] normalisation [, sum] [, ReLU] become one call where none else reads."""
        self.graph.eliminate_dead_code()
        self._absorb_relus()
        for node in list(self.graph.nodes):
            if self._calls(node, BlockedConv2d):
                self._leave_alone(node)
        norms = [n for n in self.graph.nodes if self._calls(n, BlockedNorm)]
        for norm in norms:
            self._absorb_bias(norm)
            self._keep_source_alone(norm)

    def _calls(self, node: Any, kind: type[nn.Module]) -> bool:
        return (
            isinstance(node, fx.Node)
            and node.op == "call_module"
            and isinstance(self.module.get_submodule(str(node.target)), kind)
        )

    def _absorb_relus(self) -> None:
        def is_plain_norm(node: Any) -> bool:
            alone = self._calls(node, BlockedNorm) and len(node.users) == 1
            return alone and len(node.args) == 2

        for node in list(self.graph.nodes):
            if node.target is not torch.relu or node not in self.inside.values():
                continue
            norm, other = node.args[0], None
            if norm.target is torch.add and len(norm.users) == 1:
                first, second = norm.args
                norm, other = (
                    (first, second) if is_plain_norm(first) else (second, first)
                )
            if is_plain_norm(norm):
                with self.graph.inserting_before(node):
                    fused = self.graph.call_module(
                        str(norm.target), (*norm.args, other, True)
                    )
                node.replace_all_uses_with(fused)
                self.graph.eliminate_dead_code()

    def _leave_alone(self, conv: fx.Node) -> None:
        """Let a convolution with no blocked neighbour change the layout by itself."""
        before: Any = conv.args[0]
        behind = list(conv.users)
        borders = [before.target, *(node.target for node in behind)]
        if borders != [_TO_BLOCKED, _FROM_BLOCKED] or len(before.users) > 1:
            return
        conv.args = (before.args[0], *conv.args[1:])
        conv.kwargs = {**conv.kwargs, "alone": True}
        behind[0].replace_all_uses_with(conv)
        self.graph.eliminate_dead_code()

    def _absorb_bias(self, norm: fx.Node) -> None:
        conv: Any = norm.args[0]
        if not self._calls(conv, BlockedConv2d) or len(conv.users) > 1:
            return
        if self.module.get_submodule(str(conv.target)).bias is not None:
            conv.kwargs = {**conv.kwargs, "add_bias": False}
            with self.graph.inserting_before(norm):
                bias = self.graph.get_attr(f"{conv.target}.bias")
            norm.kwargs = {**norm.kwargs, "ahead": bias}

    def _keep_source_alone(self, norm: fx.Node) -> None:
        """Let a convolution behind a normalisation keep what that keeps already."""
        source, _, residual, relu = (*norm.args, None, False)[:4]
        conv: Any = next(iter(norm.users))
        only = len(norm.users) == 1 and self._calls(conv, BlockedConv2d)
        if residual is not None or not only:
            return
        norm.kwargs = {**norm.kwargs, "with_line": True}
        with self.graph.inserting_after(norm):
            y = self.graph.call_function(operator.getitem, (norm, 0))
            line = self.graph.call_function(operator.getitem, (norm, 1))
        conv.args = (y, *conv.args[1:])
        conv.kwargs = {**conv.kwargs, "source": source, "line": line, "relu": relu}
