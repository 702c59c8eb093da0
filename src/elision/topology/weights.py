"""The weights that masks act on, and the optimiser state that belongs to them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.selecting import select_
from elision.common.sharding import full, local, scatter_like
from elision.layers import (
    ElidedLayer,
    elided_layers,
    groups_if_turned,
    plan_of,
    set_state,
    states_of,
)
from elision.operands import Transform, links_of
from elision.operands.outputs_first import turned, turned_shape
from elision.products import Product
from elision.topology.pattern import Pattern, Turned

__all__ = ["SparseWeight", "momentum", "sparse_weights"]


class SparseWeight:
    """One weight tensor with the state of its transform; layers may share it.

    Attributes:
        name: name of the first layer that holds the weight.
        layers: all layers that do.
        transform: what the forward product does to it, or the link of a chain that a
            rule acts on.

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(8, 4), elision.methods.RigL(0.5, dense=()))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> topology = elision.topology.attach(model, optimizer)
        >>> topology.weights[0].shape, topology.weights[0].density
        ((4, 8), 0.5)
    """

    def __init__(
        self,
        name: str,
        layer: ElidedLayer,
        use: str,
        transform: Transform,
        prefix: str = "",
    ) -> None:
        self.name = name
        self.layers = [layer]
        self.transform = transform
        self._use, self._prefix = use, prefix
        self._is_read_once = len(_places(layer, transform)) == 1

    @property
    def weight(self) -> nn.Parameter:
        """The parameter; a sharded one while it is sharded."""
        return self.layers[0].weight  # pyright: ignore[reportReturnType]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole weight."""
        return tuple(self.weight.shape)

    @property
    def groups_if_turned(self) -> int | None:
        """Groups, if the weight has its inputs on axis 0; None: its outputs are there."""
        return groups_if_turned(self.layers[0])

    @property
    def turned_shape(self) -> tuple[int, ...]:
        """Shape with the outputs on axis 0."""
        groups = self.groups_if_turned
        return self.shape if groups is None else turned_shape(self.shape, groups)

    def divided_by(self, pattern: Pattern) -> Pattern:
        """A pattern as it divides this weight."""
        groups = self.groups_if_turned
        return pattern if groups is None else Turned(pattern, groups)

    def turned(self, x: Tensor) -> Tensor:
        """A tensor of the weight's shape with the outputs on axis 0, or such a one back.

        A new tensor of a transposed convolution's; of any other weight's, ``x`` itself.
        """
        groups = self.groups_if_turned
        return x if groups is None else turned(x, groups)

    def state(self, name: str) -> Tensor:
        """A state tensor of the transform."""
        return states_of(self.layers[0], self._use)[self._prefix + name]

    def set_state(self, name: str, value: Tensor) -> None:
        """Write a state tensor into every layer that holds the weight, one to each."""
        for layer in self.layers:
            for use, prefix in _places(layer, self.transform):
                set_state(layer, use, prefix + name, value)
                value = value.clone()

    def share_state(self) -> None:
        """Let every use of the weight have the state that the first one has."""
        if self._is_read_once:
            return
        for name in self.transform.state_names:
            self.set_state(name, self.state(name))

    @property
    def mask(self) -> Tensor:
        """Boolean mask of the whole weight: the rule's, or what the transform keeps."""
        if self.has_mask:
            return self.state("mask")
        state = [self.state(name) for name in self.transform.state_names]
        with torch.no_grad():
            own = self.turned(full(self.weight.detach()))
            return self.turned(self.transform(own, state, False)) != 0

    @property
    def has_mask(self) -> bool:
        """True if the transform is a mask that rules move."""
        return "mask" in self.transform.state_names

    @property
    def nnz(self) -> int:
        """Number of active weights."""
        return int(self.mask.sum())

    @property
    def density(self) -> float:
        """Fraction of active weights."""
        return self.nnz / self.mask.numel()

    def announce_gradient(self, share: float) -> None:
        """Set the share of the gradient that the coming step needs."""
        if self.has_mask:
            value = self.state("gradient_density")
            self.set_state("gradient_density", torch.full_like(value, share))

    def magnitude(self) -> Tensor:
        """Absolute values of the whole weight."""
        return full(self.weight.detach()).abs()

    def gradient(self) -> Tensor:
        """Gradient of the whole weight; zeros if there is none."""
        grad = self.weight.grad
        return (
            torch.zeros_like(self.mask, dtype=torch.float32)
            if grad is None
            else full(grad)
        )

    @torch.no_grad()
    def keep(self, tensor: Tensor | None, where: Tensor) -> None:
        """Zero a tensor of the weight's shape (the weight, a gradient) elsewhere."""
        if tensor is not None:
            select_(local(tensor), local(scatter_like(where, tensor)))

    def seed_momentum(self, optimizer: torch.optim.Optimizer, values: Tensor) -> None:
        """Add whole-weight values to the momentum, once the optimiser has one.

        Raises:
            ValueError: the optimiser has no momentum of the plain kind.
        """
        if not optimizer.defaults.get("momentum"):
            raise ValueError(
                f"a momentum to start from needs SGD with momentum; "
                f"{type(optimizer).__name__} keeps none: leave momentum_seed at 0"
            )
        buffer = optimizer.state.get(self.weight, {}).get("momentum_buffer")
        if buffer is not None:
            buffer.add_(scatter_like(values, buffer))

    def keep_values(self, state: Mapping[str, Any], where: Tensor) -> None:
        """Zero every tensor of the weight's shape in a state elsewhere, whatever its name."""
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == self.weight.shape:
                self.keep(value, where)


def _places(layer: ElidedLayer, transform: Transform) -> list[tuple[str, str]]:
    """The uses of a layer's weight with a transform, and prefixes of its state there.

    Two where what follows it differs from product to product, as blocks that run along
    the terms of the sum do.
    """
    plan = plan_of(layer)
    uses = (plan.use(p, "weight") for p in (Product.FORWARD, Product.INPUT_GRAD))
    return [
        (use, prefix)
        for use in dict.fromkeys(uses)
        for prefix, link in links_of(plan.uses[use])
        if link == transform
    ]


def sparse_weights(model: nn.Module, kind: type[Transform]) -> list[SparseWeight]:
    """The weights of an elided model whose forward transform is of a kind, in order.

    A transform in a chain counts, too; the first of its kind does.
    """
    found: dict[int, SparseWeight] = {}
    for name, layer in elided_layers(model):
        plan = plan_of(layer)
        use = plan.use(Product.FORWARD, "weight")
        links = links_of(plan.uses[use])
        link = next((pair for pair in links if isinstance(pair[1], kind)), None)
        if link is None:
            continue
        seen = found.get(id(layer.weight))
        if seen is None:
            prefix, transform = link
            found[id(layer.weight)] = SparseWeight(name, layer, use, transform, prefix)
        else:
            seen.layers.append(layer)
    return list(found.values())


def momentum(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> Tensor:
    """Magnitude of the step by an optimiser's momentum: the whole tensor.

    ``|momentum|`` for SGD, ``|m|/(sqrt(v) + eps)`` for Adam and its relatives.

    Raises:
        ValueError: the optimiser keeps no momentum.
    """
    state = optimizer.state.get(weight, {})
    if isinstance(state.get("momentum_buffer"), Tensor):
        return full(state["momentum_buffer"]).abs()
    if isinstance(state.get("exp_avg"), Tensor) and "exp_avg_sq" in state:
        eps = optimizer.defaults.get("eps", 1e-8)
        return full(state["exp_avg"]).abs() / (full(state["exp_avg_sq"]).sqrt() + eps)
    raise ValueError(
        f"this method scores weights by their momentum, and {type(optimizer).__name__} "
        "keeps none; use SGD with momentum, Adam or AdamW"
    )
