"""elide and restore: run the three products of an unmodified model through a recipe.

``elide`` changes the class of every ``Conv2d`` and ``Linear`` of a model, in place, to
one whose forward and backward products read transformed operands. The layer object, its
parameters, its hooks and its state-dict keys stay what they were; what a transform must
remember is added as buffers. ``restore`` changes the class back.

An operand goes through a layer like this::

    input, weight ──transform──> forward product ──> output
        │            (saved: what the two gradient products will read)
        v
    grad_output ──transform──> input-gradient and weight-gradient products

Two cells of the table that hold equal transforms of the same operand are one *use*: the
transform is applied once and both products read its result.
"""

import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elision.engines import Engine, make_engine
from elision.layer_step import (
    LayerPlan,
    Observation,
    Observer,
    Step,
    forward_product,
    gradient_products,
)
from elision.products import Geometry, Product, geometry_of
from elision.recipe import SELECTORS, Recipe, Table, selects
from elision.whole_network import install, remove

__all__ = [
    "ElidedConv2d",
    "ElidedLinear",
    "NoEffectWarning",
    "Observation",
    "elidable_layers",
    "elide",
    "elided_layers",
    "restore",
]

Model = TypeVar("Model", bound=nn.Module)


class NoEffectWarning(UserWarning):
    """A recipe, or a pattern in one, changed nothing."""


class _Products(torch.autograd.Function):
    """The three products of one layer, each reading what its recipe says."""

    #: Roles of what is saved, in order, for ``elision.memory``.
    saved_roles = ("linear input", "weight")

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, step: Step
    ) -> Tensor:
        done: dict[str, Tensor] = {}
        read_x = step.read(Product.FORWARD, "input", x, done)
        read_w = step.read(Product.FORWARD, "weight", weight, done)
        step.tell(Product.FORWARD, read_x, read_w)
        # Saved is what the gradient products will read, not what came in.
        needs_dx, needs_dw, *_ = ctx.needs_input_grad
        ctx.save_for_backward(
            step.read(Product.WEIGHT_GRAD, "input", x, done) if needs_dw else None,
            step.read(Product.INPUT_GRAD, "weight", weight, done) if needs_dx else None,
        )
        ctx.step = step
        return forward_product(step, read_x, read_w, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        step: Step = ctx.step
        x, w = ctx.saved_tensors
        done: dict[str, Tensor] = {}
        grads = (grad, grad)
        if w is not None or x is not None:
            grads = (
                step.read(Product.INPUT_GRAD, "grad_output", grad, done),
                step.read(Product.WEIGHT_GRAD, "grad_output", grad, done),
            )
        if w is not None:
            step.tell(Product.INPUT_GRAD, grads[0], w)
        if x is not None:
            step.tell(Product.WEIGHT_GRAD, grads[1], x)
        # The bias gradient is the sum of the full gradient, whatever the recipe.
        bias = ctx.needs_input_grad[2]
        full = grads[0] is grad and grads[1] is grad
        dx, dw, db = gradient_products(step, grads, x, w, bias and full)
        if bias and not full:
            db = grad.sum([0, 2, 3] if step.convolution is not None else [0])
        return dx, dw, db, None


class _Elided(nn.Module):
    """What the two elided layers share: a plan, its state, its observers."""

    _elision_plan: LayerPlan
    _elision_name: str
    _elision_engine: Engine
    _elision_observers: tuple[Observer, ...] = ()

    def _elision_states(self) -> dict[str, dict[str, Tensor]]:
        """State tensors of each use, by name; they are buffers of the layer."""
        buffers = self._buffers
        return {
            use: {
                state: buffers[_buffer_name(use, state)]  # pyright: ignore[reportReturnType]
                for state in transform.state_names
            }
            for use, transform in self._elision_plan.uses.items()
        }

    def _shape_states(self, geometry: Geometry) -> None:
        """Give state that follows an operand's shape that shape, once it is known."""
        for use, transform in self._elision_plan.uses.items():
            operand = torch.Size(geometry.shape_of(self._elision_plan.operand_of(use)))
            for state, shape in transform.state_shapes(operand).items():
                name = _buffer_name(use, state)
                old = self._buffers[name]
                if old is not None and old.numel() == 0:
                    self._buffers[name] = old.new_zeros(shape)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load, taking over the shapes of state that follows an operand's shape."""
        for use, transform in self._elision_plan.uses.items():
            for state in transform.state_names:
                name = _buffer_name(use, state)
                own, loaded = self._buffers[name], state_dict.get(prefix + name)
                if loaded is not None and own is not None and own.shape != loaded.shape:
                    self._buffers[name] = own.new_zeros(loaded.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _run(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, convolution: Any
    ) -> Tensor:
        """The layer's output for an operand already in (N, C, H, W) or (rows, inner)."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        needs_gradient = torch.is_grad_enabled()
        if self.training and needs_gradient and _has_unshaped_state(self):
            _shape_states(self, tuple(x.shape), tuple(weight.shape), convolution)
        step = Step(
            self._elision_plan,
            self._elision_states(),
            self._elision_engine,
            x.shape,
            weight.shape,
            convolution,
            training=self.training and needs_gradient,
            observers=self._elision_observers,
            name=self._elision_name,
        )
        if needs_gradient:
            return _Products.apply(x, weight, bias, step)  # pyright: ignore[reportReturnType]
        done: dict[str, Tensor] = {}
        x = step.read(Product.FORWARD, "input", x, done)
        weight = step.read(Product.FORWARD, "weight", weight, done)
        return forward_product(step, x, weight, bias)


# While torch.compile traces, these two run for real: the state is there before the graph
# is. It has its shape when another batch size is traced, whose sizes are symbols.
@torch.compiler.assume_constant_result
def _has_unshaped_state(layer: _Elided) -> bool:
    states = layer._elision_states().values()
    return any(state.numel() == 0 for named in states for state in named.values())


@torch.compiler.assume_constant_result
def _shape_states(
    layer: _Elided, x: tuple[int, ...], weight: tuple[int, ...], convolution: Any
) -> None:
    layer._shape_states(geometry_of(x, weight, convolution))


class ElidedConv2d(_Elided, nn.Conv2d):
    """A ``Conv2d`` whose three products read what a recipe says."""

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        unbatched = input.dim() == 3
        x = input.unsqueeze(0) if unbatched else input
        padding = self._symmetric_padding()
        if padding is None:
            mode = self.padding_mode.replace("zeros", "constant")
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
            padding = (0, 0)
        convolution = (self.stride, padding, self.dilation, self.groups)
        y = self._run(x, weight, bias, convolution)
        return y.squeeze(0) if unbatched else y

    def _symmetric_padding(self) -> tuple[int, ...] | None:
        """Zero padding that a convolution can do itself, or None."""
        left, right, top, bottom = self._reversed_padding_repeated_twice
        if self.padding_mode != "zeros" or left != right or top != bottom:
            return None
        return (top, left)


class ElidedLinear(_Elided, nn.Linear):
    """A ``Linear`` whose three products read what a recipe says.

    Leading axes are flattened: the rows of the matrix product are the examples.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        y = self._run(
            input.reshape(-1, input.shape[-1]), self.weight, self.bias, convolution=None
        )
        return y.view(*input.shape[:-1], y.shape[-1])


_ELIDED: dict[type[nn.Module], type[_Elided]] = {
    nn.Conv2d: ElidedConv2d,
    nn.Linear: ElidedLinear,
}
_PLAIN = {elided: plain for plain, elided in _ELIDED.items()}

#: Attribute by which DistributedDataParallel learns what it must not broadcast.
_DDP_IGNORE = "_ddp_params_and_buffers_to_ignore"


def _buffer_name(use: str, state: str) -> str:
    return f"elision_{use}_{state}"


def elidable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that a recipe can reach, by name, in the order of registration.

    These are the modules that are exactly ``Conv2d`` or ``Linear`` (or are elided
    already). A subclass with a forward of its own is not touched, nor is what a module
    computes from bare parameters, such as the projections of ``MultiheadAttention``.
    """
    known = (*_ELIDED, *_PLAIN)
    return {n: m for n, m in model.named_modules() if type(m) in known}


def elided_layers(model: nn.Module) -> Iterator[tuple[str, _Elided]]:
    """Names and layers of a model that ``elide`` has changed."""
    for name, module in model.named_modules():
        if isinstance(module, _Elided):
            yield name, module


def elide(model: Model, recipe: Recipe, engine: str = "auto") -> Model:
    """Run the products of a model's convolutions and linear layers through a recipe.

    In place; a model that was elided before gets the new recipe with fresh state.
    State-dict keys do not change; state that the recipe's transforms remember is added
    under ``<layer>.elision_<operand>_for_<product>_<state>``.

    Args:
        model: any module; see :func:`elidable_layers` for what is reached.
        recipe: what is done, for example ``elision.methods.Swat(sparsity=0.9)``.
        engine: who computes the products. ``"torch"``: dense, the oracle.
            ``"native"``: kernels that leave the zeros out (raises if they cannot be
            built here). ``"auto"``: the faster of the two for each product that has a
            sparse operand, timed once on this machine and kept; a product of which
            nothing is left out is torch's, to the last bit.

    Returns:
        The same model.

    Raises:
        TypeError: ``recipe`` is not a recipe.
        ValueError: unknown engine or layer selector.
        RuntimeError: the engine cannot be used on this machine.

    Warns:
        NoEffectWarning: no layer was reached, or a pattern of the recipe names none.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a Recipe, got {type(recipe).__name__}")
    make_engine(engine)  # an engine that cannot be had fails before anything changes
    layers = elidable_layers(model)
    names = list(layers)
    recipe = recipe.resolved(layers)
    tables = {n: recipe.table_for(n, m, names) for n, m in layers.items()}
    _warn_without_effect(recipe, layers, tables)
    restore(model)
    for name, layer in layers.items():
        _elide_layer(layer, name, LayerPlan(recipe.name, tables[name]), engine)
    recipe.prepare(model)
    install(model, layers, engine)
    # A threshold or reference belongs to its replica; a broadcast would replace it.
    local = [
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        for buffer in module._buffers
        if buffer.startswith("elision_")
    ]
    if local:
        setattr(model, _DDP_IGNORE, [*getattr(model, _DDP_IGNORE, []), *local])
    return model


def _elide_layer(layer: nn.Module, name: str, plan: LayerPlan, engine: str) -> None:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    elided = _ELIDED[type(layer)]
    layer.__class__ = elided
    layer._elision_plan = plan  # pyright: ignore[reportArgumentType]
    layer._elision_name = name  # pyright: ignore[reportArgumentType]
    layer._elision_engine = make_engine(engine)  # pyright: ignore[reportArgumentType]
    for use, transform in plan.uses.items():
        for state, value in transform.initial_state().items():
            layer.register_buffer(_buffer_name(use, state), value.to(weight.device))


def _warn_without_effect(
    recipe: Recipe, layers: dict[str, nn.Module], tables: dict[str, Table]
) -> None:
    wants = bool(recipe.table) or any(table for _, table in recipe.overrides)
    if not layers or (wants and not any(tables.values())):
        warnings.warn(
            f"recipe {recipe.name!r} changes no layer of this model "
            f"({len(layers)} Conv2d and Linear layers found)",
            NoEffectWarning,
            stacklevel=3,
        )
        return
    for pattern in (*recipe.dense, *(p for p, _ in recipe.overrides)):
        if pattern not in SELECTORS and not any(
            selects(pattern, n, m, list(layers)) for n, m in layers.items()
        ):
            warnings.warn(
                f"recipe {recipe.name!r}: pattern {pattern!r} names no layer",
                NoEffectWarning,
                stacklevel=3,
            )


def restore(model: Model) -> Model:
    """Give a model its plain layers back, in place, and drop the recipe's state.

    Args:
        model: a module, elided or not.

    Returns:
        The same model.
    """
    for module in list(model.modules()):
        remove(module)
        for handle in vars(module).get("_elision_hooks", ()):
            handle.remove()
        for buffer in [b for b in module._buffers if b.startswith("elision_")]:
            del module._buffers[buffer]
            module._non_persistent_buffers_set.discard(buffer)
        for attribute in [a for a in vars(module) if a.startswith("_elision_")]:
            delattr(module, attribute)
        if isinstance(module, _Elided):
            module.__class__ = _PLAIN[type(module)]  # pyright: ignore[reportAttributeAccessIssue]
    ignored = getattr(model, _DDP_IGNORE, None)
    if ignored is not None:
        kept = [n for n in ignored if not n.rpartition(".")[2].startswith("elision_")]
        setattr(model, _DDP_IGNORE, kept) if kept else delattr(model, _DDP_IGNORE)
    return model
