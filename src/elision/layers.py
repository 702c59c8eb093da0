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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elision.engines import Engine, TorchEngine, make_engine
from elision.operands import KEEP, Transform
from elision.products import (
    Conv2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)
from elision.recipe import SELECTORS, Recipe, Table, selects

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


@dataclass(frozen=True)
class Observation:
    """One product as it was computed, for those who watch (recorders and meters).

    Attributes:
        product: the product with the operands it read (tensors, not copied).
        work: per operand name, the fraction of the multiplications that its transform
            left to do (see :meth:`elision.operands.Transform.work`); for a weight
            gradient also ``"result"``, the fraction of its values that is asked for.
        uses: per operand name, a name shared by those products of a call that read the
            same tensor.
        recipe: name of the recipe.
        call: token of the pass through the layer, the same for its three products.
    """

    product: LayerProduct
    work: dict[str, float]
    uses: dict[str, str]
    recipe: str
    call: object


Observer = Callable[[Observation], None]


class LayerPlan:
    """What one layer does to its operands: the table, as uses with their state names.

    Attributes:
        recipe: name of the recipe.
        table: the layer's table.
        uses: name of each use -> its transform.
    """

    def __init__(self, recipe: str, table: Table) -> None:
        self.recipe = recipe
        self.table = table
        self.uses: dict[str, Transform] = {}
        self._use_of: dict[tuple[Product, str], str] = {}
        named: dict[tuple[str, Transform], str] = {}
        for product, operand, transform in table:
            name = named.setdefault(
                (operand, transform), f"{operand}_for_{product.value}"
            )
            self.uses[name] = transform
            self._use_of[product, operand] = name

    def use(self, product: Product, operand: str) -> str:
        """Name of the use that a product reads."""
        return self._use_of[product, operand]

    def operand_of(self, use: str) -> str:
        """Name of the operand that a use transforms."""
        return use.partition("_for_")[0]


class _Step:
    """One pass through one layer: applies the uses, each once, and tells observers."""

    def __init__(
        self, layer: "_Elided", x: torch.Size, weight: torch.Size, convolution: Any
    ) -> None:
        self.plan = layer._elision_plan
        self.states = layer._elision_states()
        self.training = layer.training
        self.observers = layer._elision_observers
        self.name = layer._elision_name
        self.engine = layer._elision_engine
        self.input_shape = x
        self.weight_shape = weight
        self.convolution = convolution

    def read(
        self, product: Product, operand: str, x: Tensor, done: dict[str, Tensor]
    ) -> Tensor:
        """What ``product`` reads in place of operand ``x``."""
        use = self.plan.use(product, operand)
        transform = self.plan.uses[use]
        if transform == KEEP:
            return x
        if use not in done:
            done[use] = transform(x, list(self.states[use].values()), self.training)
        return done[use]

    def computes(self) -> bool:
        """Whether an engine other than torch's is asked for, and can be asked.

        While torch.compile traces, the products stay torch's, which it can fuse.
        """
        return not (
            isinstance(self.engine, TorchEngine) or torch.compiler.is_compiling()
        )

    def compute(self, product: Product, first: Tensor, second: Tensor) -> Tensor:
        """The product by the layer's engine, told which operand was made sparse."""
        sparse = (o for o in product.operands if self._transform(product, o).sparsifies)
        return self.engine.product(
            product,
            _geometry(self.input_shape, self.weight_shape, self.convolution),
            first,
            second,
            sparse=next(sparse, None),
        )

    def _transform(self, product: Product, operand: str) -> Transform:
        return self.plan.uses[self.plan.use(product, operand)]

    def tell(self, product: Product, first: Tensor, second: Tensor) -> None:
        """Show a product to the observers, if there are any."""
        if not self.observers:
            return
        uses = {o: self.plan.use(product, o) for o in product.operands}
        geometry = _geometry(self.input_shape, self.weight_shape, self.convolution)
        read = zip(product.operands, (first, second), strict=True)
        work = {
            o: self.plan.uses[uses[o]].work(x, self.states[uses[o]]) for o, x in read
        }
        if product is Product.WEIGHT_GRAD:
            masked_by = self.plan.use(Product.FORWARD, "weight")
            transform = self.plan.uses[masked_by]
            work["result"] = transform.gradient_work(self.states[masked_by])
        observation = Observation(
            LayerProduct(product, geometry, first.detach(), second.detach(), self.name),
            work=work,
            uses=uses,
            recipe=self.plan.recipe,
            call=self,
        )
        for observer in self.observers:
            observer(observation)


def _forward_product(step: _Step, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    if step.computes():
        y = step.compute(Product.FORWARD, x, w)
        if bias is None:
            return y
        return y + (bias if step.convolution is None else bias.view(-1, 1, 1))
    if step.convolution is None:
        return F.linear(x, w, bias)
    return F.conv2d(x, w, bias, *step.convolution)


def _gradient_products(
    step: _Step,
    grads: tuple[Tensor, Tensor],
    x: Tensor | None,
    w: Tensor | None,
    bias: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """``dX`` from (G, W), ``dW`` from (G, X), and ``db`` from G where it is asked for.

    An absent operand means an absent result; ``bias`` may be asked for only where both
    products read the same G.
    """
    for_input, for_weight = grads
    if step.computes():
        return (
            None if w is None else step.compute(Product.INPUT_GRAD, for_input, w),
            None if x is None else step.compute(Product.WEIGHT_GRAD, for_weight, x),
            for_input.sum([0, 2, 3][: for_input.dim() - 1]) if bias else None,
        )
    if step.convolution is None:
        return (
            None if w is None else for_input @ w,
            None if x is None else for_weight.T @ x,
            for_input.sum(0) if bias else None,
        )
    if for_input is for_weight:
        return _convolution_backward(step, for_input, x, w, bias)
    dx, _, _ = _convolution_backward(step, for_input, None, w)
    _, dw, _ = _convolution_backward(step, for_weight, x, None)
    return dx, dw, None


def _convolution_backward(
    step: _Step, g: Tensor, x: Tensor | None, w: Tensor | None, bias: bool = False
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Torch's own backward; an absent operand, an absent result."""
    asked = (w is not None, x is not None, bias)
    # Torch wants the shape of an operand that it will not read.
    x = g.new_empty(1).expand(step.input_shape) if x is None else x
    w = g.new_empty(1).expand(step.weight_shape) if w is None else w
    stride, padding, dilation, groups = step.convolution
    sizes = [g.shape[1]] if bias else None
    return torch.ops.aten.convolution_backward(
        g, x, w, sizes, stride, padding, dilation, False, (0, 0), groups, asked
    )


class _Products(torch.autograd.Function):
    """The three products of one layer, each reading what its recipe says."""

    #: Roles of what is saved, in order, for ``elision.memory``.
    saved_roles = ("linear input", "weight")

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, step: _Step
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
        return _forward_product(step, read_x, read_w, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        step: _Step = ctx.step
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
        dx, dw, db = _gradient_products(step, grads, x, w, bias and full)
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
        if self.training and needs_gradient:
            _shape_states(self, tuple(x.shape), tuple(weight.shape), convolution)
        step = _Step(self, x.shape, weight.shape, convolution)
        if needs_gradient:
            return _Products.apply(x, weight, bias, step)  # pyright: ignore[reportReturnType]
        step.training = False
        done: dict[str, Tensor] = {}
        x = step.read(Product.FORWARD, "input", x, done)
        weight = step.read(Product.FORWARD, "weight", weight, done)
        return _forward_product(step, x, weight, bias)


# While torch.compile traces, this runs for real: the state is there before the graph is.
@torch.compiler.assume_constant_result
def _shape_states(
    layer: _Elided, x: tuple[int, ...], weight: tuple[int, ...], convolution: Any
) -> None:
    layer._shape_states(_geometry(x, weight, convolution))


def _geometry(
    x: tuple[int, ...], weight: tuple[int, ...], convolution: Any
) -> Geometry:
    """Geometry from the shapes of a layer's input and weight."""
    if convolution is None:
        return MatmulGeometry(x[0], x[1], weight[0])
    stride, padding, dilation, groups = convolution
    return Conv2dGeometry.of(
        x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


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


def elide(model: Model, recipe: Recipe, engine: str = "torch") -> Model:
    """Run the products of a model's convolutions and linear layers through a recipe.

    In place; a model that was elided before gets the new recipe with fresh state.
    State-dict keys do not change; state that the recipe's transforms remember is added
    under ``<layer>.elision_<operand>_for_<product>_<state>``.

    Args:
        model: any module; see :func:`elidable_layers` for what is reached.
        recipe: what is done, for example ``elision.methods.Swat(sparsity=0.9)``.
        engine: who computes the products: ``"torch"``, ``"native"`` (raises if it
            cannot be built here) or ``"auto"``, the faster of the two per product.

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
