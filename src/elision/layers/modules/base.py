"""The part that all elided layers share: three products under one plan.

An operand goes through a layer like this::

    input, weight ──transform──> forward product ──> output
        │            (saved: the operands of the two gradient products)
        v
    grad_output ──transform──> input-gradient and weight-gradient products
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elision.engines import Engine
from elision.engines.native.blocked.tensor import as_plain, offered
from elision.layers.blocked import is_usable
from elision.layers.forms import Forms
from elision.layers.observation import Observer
from elision.layers.plan import LayerPlan, buffer_name
from elision.layers.step import Step, forward_product, gradient_products
from elision.products import Geometry, Product, dense, geometry_of

__all__ = ["ElidedLayer", "plan_of", "set_state", "states_of"]


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


class ElidedLayer(nn.Module):
    """Base of all elided layers: a plan, its state, its observers.

    A member is a subclass of this and of the plain layer type, in this order; its
    forward brings the operands into the shapes of :meth:`run_products`. Layers are not
    made but changed: ``elide`` sets the class of a plain layer, so a member has no
    ``__init__`` (see :func:`elision.layers.register`).

    Example:
        >>> from torch import nn
        >>> import elision
        >>> layer = elision.elide(nn.Linear(4, 2), elision.methods.Swat(0.5, dense=()))
        >>> type(layer).__name__, isinstance(layer, nn.Linear)
        ('ElidedLinear', True)
    """

    _elision_plan: LayerPlan
    _elision_name: str
    _elision_engine: Engine
    _elision_observers: tuple[Observer, ...] = ()
    _elision_forms: Forms | None = None
    _elision_offers: bool = False

    def _elision_states(self) -> dict[str, dict[str, Tensor]]:
        """State tensors of each use, by name; they are buffers of the layer."""
        buffers = self._buffers
        return {
            use: {state: buffers[name] for state, name in names.items()}  # pyright: ignore[reportReturnType]
            for use, names in self._elision_plan.buffers.items()
        }

    def _shape_states(self, geometry: Geometry) -> None:
        """Give state that follows an operand's shape that shape, once it is known."""
        for use, transform in self._elision_plan.uses.items():
            operand = torch.Size(geometry.shape_of(self._elision_plan.operand_of(use)))
            for state, shape in transform.state_shapes(operand).items():
                name = buffer_name(use, state)
                old = self._buffers[name]
                if old is not None and old.numel() == 0:
                    self._buffers[name] = old.new_zeros(shape)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load, taking over the shapes of state that follows an operand's shape."""
        for use, transform in self._elision_plan.uses.items():
            for state in transform.state_names:
                name = buffer_name(use, state)
                own, loaded = self._buffers[name], state_dict.get(prefix + name)
                if loaded is not None and own is not None and own.shape != loaded.shape:
                    self._buffers[name] = own.new_zeros(loaded.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def run_products(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: Any = None,
    ) -> Tensor:
        """Forward product of a layer under its plan; autograd runs the gradient products.

        Args:
            x: input, (N, C, H, W) of a convolution or (rows, inner) of a matrix product.
            weight: (K, C/groups, R, S) or (columns, inner).
            bias: (K,) or (columns,); None for none.
            convolution: stride, padding, dilation (each a pair) and groups; None for a
                matrix product.

        Returns:
            The output with its bias, (N, K, P, Q) or (rows, columns).
        """
        if torch.compiler.is_compiling():
            return self._products(x, weight, bias, convolution, self._elision_engine)
        if x.shape[0] == 0:  # nothing to leave out, and no state moves
            return dense.forward(x, weight, bias, convolution)

        def products(x: Tensor, weight: Tensor, engine: Engine) -> Tensor:
            return self._products(as_plain(x), weight, bias, convolution, engine)

        forms = self._elision_forms
        if not (self._elision_observers or self._elision_plan.changes):
            y = dense.forward(as_plain(x), weight, bias, convolution)  # the plain layer
        elif self._elision_observers or forms is None:
            y = products(x, weight, self._elision_engine)
        else:
            y = forms.output(self, x, weight, bias, convolution, products)
        return offered(y) if self._elision_offers and is_usable(y, weight, bias) else y

    def _products(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: Any,
        engine: Engine,
    ) -> Tensor:
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
            engine,
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
def _has_unshaped_state(layer: ElidedLayer) -> bool:
    states = layer._elision_states().values()
    return any(state.numel() == 0 for named in states for state in named.values())


@torch.compiler.assume_constant_result
def _shape_states(
    layer: ElidedLayer, x: tuple[int, ...], weight: tuple[int, ...], convolution: Any
) -> None:
    layer._shape_states(geometry_of(x, weight, convolution))


def plan_of(layer: ElidedLayer) -> LayerPlan:
    """The plan of an elided layer: its table as uses."""
    return layer._elision_plan


def states_of(layer: ElidedLayer, use: str) -> dict[str, Tensor]:
    """State tensors of one use of an elided layer, by state name; they are its buffers."""
    names, buffers = layer._elision_plan.buffers[use], layer._buffers
    return {state: buffers[name] for state, name in names.items()}  # pyright: ignore[reportReturnType]


def set_state(layer: ElidedLayer, use: str, state: str, value: Tensor) -> None:
    """Give a state tensor of an elided layer a value.

    Written in place where the shape stays; otherwise the buffer is replaced, on the
    device of the weight and in the old dtype.
    """
    name = buffer_name(use, state)
    old = layer._buffers[name]
    assert old is not None
    if old.shape == value.shape:
        old.copy_(value)
    else:
        layer._buffers[name] = value.to(layer.weight.device, old.dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
