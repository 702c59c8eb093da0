"""A whole network in the blocked layout.

``blocked`` traces a model and keeps activations in the kernels' layout from the first
sparse convolution on: through batch normalisation, ReLU, max pooling and the residual
sum, which become one pass where they follow one another. Whatever else the model does is
done by torch, and the layout is changed at the border. The new module shares parameters
and buffers with the model, under the same names.
"""

import copy
import itertools
import operator
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from elision.engines.native import ops

__all__ = ["Sparsity", "blocked"]

_TO_BLOCKED = torch.ops.elision.to_blocked.default
_FROM_BLOCKED = torch.ops.elision.from_blocked.default


@dataclass(frozen=True)
class Sparsity:
    """What one convolution leaves out.

    Attributes:
        weight_keep: fraction of the weights that forward and input gradient read, the
            largest; ignored under a mask.
        input_keep: fraction of the input that the weight gradient reads, the largest.
        samples: values that thresholds are estimated from; None for exact thresholds.
        mask: name of the module's attribute that holds a mask of the weight's shape:
            weights where it is zero are out of all three products. None: no mask.

    Raises:
        ValueError: a fraction is not in (0, 1], or ``samples`` is not positive.
    """

    weight_keep: float = 1.0
    input_keep: float = 1.0
    samples: int | None = 16384
    mask: str | None = None

    def __post_init__(self) -> None:
        for name in ("weight_keep", "input_keep"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"Sparsity({name}={getattr(self, name)!r}): must be in (0, 1]"
                )
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"Sparsity(samples={self.samples!r}): must be >= 1")


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


class _BlockedConv2d(nn.Conv2d):
    """A convolution of blocked tensors; ``images`` is the batch size."""

    sparsity: Sparsity
    layer: int

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: Tensor, images: int, add_bias: bool = True
    ) -> Tensor:
        s = self.sparsity
        y = ops.conv2d(
            input,
            self.weight,
            getattr(self, s.mask) if s.mask else None,
            images,
            [*self.stride, *_pair(self.padding), *self.dilation],  # pyright: ignore[reportArgumentType]
            s.weight_keep,
            s.input_keep,
            s.samples or 0,
            self.layer,
        )
        if self.bias is None or not add_bias:
            return y
        return y + self.bias.view(1, -1, 1, 1, 1)


class _BlockedNorm(nn.BatchNorm2d):
    """Batch normalisation, residual sum and ReLU of blocked tensors.

    ``ahead`` is the bias of the convolution before, not added yet: it moves the running
    mean, and nothing else while the statistics are those of the batch.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,
        images: int,
        residual: Tensor | None = None,
        relu: bool = False,
        ahead: Tensor | None = None,
    ) -> Tensor:
        track = self.training and self.track_running_stats
        train = self.training or self.running_mean is None
        mean, variance = self.running_mean, self.running_var
        if mean is None or variance is None:
            mean = variance = input.new_empty(input.shape[1])
        shift = self.bias
        if ahead is not None:
            # Times zero: the bias has a gradient, which is zero, and not none at all.
            slope = 0.0 if train else torch.rsqrt(variance + self.eps)
            moved = ahead * slope * (1.0 if self.weight is None else self.weight)
            shift = moved if shift is None else shift + moved
        y, mean, variance = ops.norm(
            *(input, residual, self.weight, shift, mean, variance),
            images,
            self.eps,
            relu,
            train,
        )
        if track:
            mean = mean if ahead is None else mean + ahead
            self._track(mean, variance, images * input.shape[2] * input.shape[3])
        return y

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # cumulative average
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)


class _BlockedMaxPool(nn.MaxPool2d):
    """Max pooling of blocked tensors."""

    def forward(self, input: Tensor, images: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        pairs = map(_pair, (self.kernel_size, self.stride, self.padding))
        window = [*itertools.chain.from_iterable(pairs), int(self.ceil_mode)]
        return ops.max_pool(input, window)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layers = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
        return isinstance(m, layers) or super().is_leaf_module(m, module_qualified_name)


def _as(module: nn.Module, kind: type[nn.Module]) -> Any:
    """The same module, parameters and buffers shared, with another forward."""
    made = copy.copy(module)
    made.__class__ = kind
    return made


def _is_relu(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    return node.target in {F.relu, torch.relu, "relu", "relu_"}


def _is_add(node: fx.Node) -> bool:
    plain = {operator.add, operator.iadd, torch.add, "add", "add_"}
    tensors = [a for a in node.args if isinstance(a, fx.Node)]
    return node.target in plain and len(tensors) == len(node.args) == 2


def _in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if not (node.args and isinstance(node.args[0], fx.Node)):
        return False
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    return node.target in {operator.iadd, "add_", "relu_"} or bool(
        node.kwargs.get("inplace", False)
    )


def _plain_max_pool(module: nn.Module) -> bool:
    return (
        type(module) is nn.MaxPool2d
        and not module.return_indices
        and _pair(module.dilation) == [1, 1]
    )


def _can_block(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def blocked(model: nn.Module, sparsity: Mapping[str, Sparsity]) -> fx.GraphModule:
    """The model with its sparse convolutions, and what lies between, blocked.

    Float32 on the CPU, input ``(N, C, H, W)`` of any ``N``. A convolution that
    ``sparsity`` does not name, or that is grouped, is left to torch.

    Args:
        model: a module that ``torch.fx`` can trace (no data-dependent control flow).
        sparsity: what is left out, by name of the convolution.

    Returns:
        A module that computes the same function with the same parameters.

    Raises:
        ValueError: a name is not a ``Conv2d`` of the model.
        BuildError: the native kernels are not available here.
    """
    from elision.engines.native import library

    library.load()
    modules = dict(model.named_modules())
    for name in sparsity:
        if not isinstance(modules.get(name), nn.Conv2d):
            raise ValueError(f"sparsity names {name!r}, which is not a Conv2d")
    graph = _Tracer().trace(model)
    made = fx.GraphModule(model, graph)
    _Rewriter(made, sparsity).run()
    made.train(model.training)
    return made


class _Rewriter:
    """One pass over a graph; ``inside`` maps a node to its blocked value."""

    def __init__(
        self, module: fx.GraphModule, sparsity: Mapping[str, Sparsity]
    ) -> None:
        self.module, self.graph, self.sparsity = module, module.graph, sparsity
        self.modules = dict(module.named_modules())
        self.inside: dict[fx.Node, fx.Node] = {}
        self.outside: dict[fx.Node, fx.Node] = {}
        first = next(n for n in self.graph.nodes if n.op == "placeholder")
        with self.graph.inserting_after(first):
            shape = self.graph.call_method("size", (first, 0))
        self.images = shape

    def run(self) -> None:
        """Rewrite the graph of the module."""
        self._untangle()
        for node in list(self.graph.nodes):
            if node is self.images:
                continue
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
        inputs = [a for a in node.args if isinstance(a, fx.Node)]
        if not inputs or node.op not in {"call_module", "call_function", "call_method"}:
            return None
        x = inputs[0]
        if node.op == "call_module":
            name = str(node.target)
            module = self.modules[name]
            if type(module) is nn.BatchNorm2d or (
                name in self.sparsity and _can_block(module)
            ):
                return self._module(node, self._enter(x, node))
            if x not in self.inside:
                return None
            if _plain_max_pool(module):
                return self._module(node, self.inside[x])
            if type(module) is nn.Identity:
                return self.inside[x]
        if all(i in self.inside for i in inputs) and (
            _is_relu(node, self.modules) or _is_add(node)
        ):
            target = torch.relu if _is_relu(node, self.modules) else torch.add
            return self.graph.call_function(
                target, tuple(self.inside[i] for i in inputs)
            )
        return None

    def _enter(self, x: fx.Node, node: fx.Node) -> fx.Node:
        if x not in self.inside:
            with self.graph.inserting_before(node):
                self.inside[x] = self.graph.call_function(_TO_BLOCKED, (x,))
        return self.inside[x]

    def _leave(self, node: fx.Node) -> None:
        """Give a node that torch computes its blocked inputs in torch's layout."""

        def plain(x: fx.Node) -> fx.Node:
            if x not in self.inside or self.inside[x].target is _TO_BLOCKED:
                return x
            if x not in self.outside:
                with self.graph.inserting_before(node):
                    self.outside[x] = self.graph.call_function(
                        _FROM_BLOCKED, (self.inside[x], self.images)
                    )
            return self.outside[x]

        node.args = fx.map_arg(node.args, plain)
        node.kwargs = fx.map_arg(node.kwargs, plain)

    def _module(self, node: fx.Node, x: fx.Node) -> fx.Node:
        name = str(node.target)
        module = self.modules[name]
        if isinstance(module, nn.Conv2d):
            made = _as(module, _BlockedConv2d)
            made.sparsity, made.layer = self.sparsity[name], ops.new_layer()
            weakref.finalize(made, ops.forget_layer, made.layer)
        else:
            norm = type(module) is nn.BatchNorm2d
            made = _as(module, _BlockedNorm if norm else _BlockedMaxPool)
        self.module.set_submodule(name, made)
        return self.graph.call_module(name, (x, self.images))

    def _fuse(self) -> None:
        """[Bias,] normalisation [, sum] [, ReLU] become one call where none else reads."""
        self.graph.eliminate_dead_code()
        current = dict(self.module.named_modules())

        def is_norm(node: Any) -> bool:
            return (
                isinstance(node, fx.Node)
                and node.op == "call_module"
                and isinstance(current[str(node.target)], _BlockedNorm)
                and len(node.users) == 1
                and len(node.args) == 2
            )

        for node in list(self.graph.nodes):
            if node.target is not torch.relu or node not in self.inside.values():
                continue
            source, other = node.args[0], None
            if source.target is torch.add and len(source.users) == 1:
                first, second = source.args
                source, other = (first, second) if is_norm(first) else (second, first)
            if is_norm(source):
                with self.graph.inserting_before(node):
                    fused = self.graph.call_module(
                        str(source.target), (*source.args, other, True)
                    )
                node.replace_all_uses_with(fused)
                self.graph.eliminate_dead_code()
        for node in list(self.graph.nodes):
            norm = current.get(str(node.target)) if node.op == "call_module" else None
            if not isinstance(norm, _BlockedNorm):
                continue
            before = node.args[0]
            conv = current.get(str(before.target))
            if (
                isinstance(conv, _BlockedConv2d)
                and conv.bias is not None
                and len(before.users) == 1
            ):
                before.kwargs = {"add_bias": False}
                with self.graph.inserting_before(node):
                    bias = self.graph.get_attr(f"{before.target}.bias")
                node.kwargs = {"ahead": bias}
