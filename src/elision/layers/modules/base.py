"""The part that all elided layers share: three products under one plan.

An operand goes through a layer like this::

    input, weight ──transform──> forward product ──> output
        │            (saved: the operands of the two gradient products)
        v
    grad_output ──transform──> input-gradient and weight-gradient products

A transform with a gradient of its own stands in front of all three: autograd runs its
backward pass behind the gradient product.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elision.common.exact import own, plain
from elision.engines import Engine
from elision.engines.native.blocked.tensor import as_plain, offered
from elision.layers.blocked import is_usable
from elision.layers.forms import Forms
from elision.layers.observation import Observer
from elision.layers.plan import LayerPlan, buffer_name
from elision.layers.recomputation import (
    OWN_PRODUCTS,
    LatestCalls,
    States,
    is_recomputation,
    unseen,
)
from elision.layers.step import (
    Held,
    Rows,
    Step,
    forward_product,
    gradient_products,
)
from elision.products import (
    ConvolutionParameters,
    Geometry,
    Product,
    dense,
    geometry_of,
)

__all__ = ["ElidedLayer", "plan_of", "set_state", "states_of", "tied_reader"]


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
        saved = ctx.saved_tensors  # which may compute a part of the model again
        if torch.compiler.is_compiling():  # nothing watches operators of a graph
            return _Products._gradients(ctx, saved, *grad_outputs)
        with OWN_PRODUCTS:
            return _Products._gradients(ctx, saved, *grad_outputs)

    @staticmethod
    def _gradients(
        ctx: Any, saved: tuple[Tensor | None, Tensor | None], grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        step: Step = ctx.step
        x, w = saved
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
            db = grad.sum([0, *range(2, grad.dim())])
        return dx, dw, db, None


class _ProductsOfOperands(_Products):
    """Those of a product whose operands may be anything: a saver keeps them exact."""

    saved_roles = (None, None)


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
    _elision_calls: LatestCalls | None = None
    _elision_tied_to: str | None = None
    _elision_held: Held | None = None
    #: Whether the second operand is a weight, and the first what a layer is given.
    _elision_has_weight: ClassVar[bool] = True

    def _elision_traced(self, input: Any, **keywords: Any) -> Any:
        """A call as one node of a graph that ``torch.fx`` traces, as of a plain layer."""
        name = input.tracer.path_of_module(self)
        return input.tracer.create_proxy("call_module", name, (input,), keywords)

    # State whose shape only a batch shows (a reference gradient) is no buffer: whatever
    # averages, broadcasts or swaps buffers could not know what to do with it. It is an
    # attribute of the name that a buffer would have and moves with the layer; state dicts
    # hold it, without elements while its shape is unknown, for no average to touch.

    def _elision_states(self) -> dict[str, dict[str, Tensor]]:
        """State tensors of each use, by name: buffers, or attributes of that name."""
        buffers = self._buffers
        return {
            use: {
                state: buffers[name] if name in buffers else getattr(self, name)  # pyright: ignore[reportReturnType]
                for state, name in names.items()
            }
            for use, names in self._elision_plan.buffers.items()
        }

    @property
    def _is_in_step(self) -> bool:
        """Whether a forward pass now is one of training, so that state moves."""
        # While a graph is traced, inference mode cannot be asked for.
        graph = torch.compiler.is_compiling()
        return self.training and (graph or not torch.is_inference_mode_enabled())

    def _elision_shaped(self) -> list[str]:
        """Names of the attributes that hold state whose shape a batch shows."""
        return [name for name in self.__dict__ if name.startswith("elision_")]

    # While torch.compile traces, these two run for real: the state is there before the
    # graph is. It has its shape when another batch size is traced, whose sizes are symbols.
    # They are methods, as torch below 2.13 takes no module as an argument of a constant.
    @torch.compiler.assume_constant_result
    def _has_unshaped_state(self) -> bool:
        states = self._elision_states().values()
        return any(state.numel() == 0 for named in states for state in named.values())

    @torch.compiler.assume_constant_result
    def _shape_states_of(
        self, x: tuple[int, ...], weight: tuple[int, ...], convolution: Any
    ) -> None:
        with unseen():
            self._shape_states(geometry_of(x, weight, convolution))

    def _shape_states(self, geometry: Geometry) -> None:
        """Give state that follows an operand's shape that shape, once it is known."""
        for use, transform in self._elision_plan.uses.items():
            operand = torch.Size(geometry.shape_of(self._elision_plan.operand_of(use)))
            for state, shape in transform.state_shapes(operand).items():
                name = buffer_name(use, state)
                old = self.__dict__.get(name)
                if old is not None and old.numel() == 0:
                    self.__dict__[name] = old.new_zeros(shape)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move or convert the layer, state that is no buffer included."""
        super()._apply(fn, recurse)
        for name in self._elision_shaped():
            self.__dict__[name] = fn(self.__dict__[name])
        return self

    def _save_to_state_dict(
        self, destination: Any, prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._elision_shaped():
            destination[prefix + name] = own(self.__dict__[name].detach())

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load, taking over the shapes of state that follows an operand's shape.

        A state dict from before the first batch makes these shapes unknown again.
        """
        rest = dict(state_dict)
        for use, transform in self._elision_plan.uses.items():
            names = [buffer_name(use, state) for state in transform.state_names]
            is_there = any(prefix + name in state_dict for name in names)
            for name in names:
                buffer, loaded = self._buffers.get(name), state_dict.get(prefix + name)
                if name in self.__dict__ and is_there:
                    rest.pop(prefix + name, None)
                    old = self.__dict__[name]
                    given = old.new_zeros(0) if loaded is None else loaded
                    self.__dict__[name] = plain(given).detach().to(old).clone()
                elif loaded is not None and buffer is not None and not buffer.numel():
                    self._buffers[name] = buffer.new_zeros(loaded.shape)
        super()._load_from_state_dict(rest, prefix, *args, **kwargs)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Context manager: all calls in it read the weight as the first one does.

        For a layer that one pass of the model calls at every time step: a weight's
        transform runs once, and its state moves once.
        """
        self._elision_held = Held()
        try:
            yield
        finally:
            del self._elision_held

    def run_products(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: Any = None,
        rows: slice | None = None,
    ) -> Tensor:
        """Forward product of a layer under its plan; autograd runs the gradient products.

        Args:
            x: input, ``(N, C, *sizes)`` of a convolution, ``(rows, inner)`` of a product,
                ``(batch, rows, inner)`` of a batch of them.
            weight: ``(K, C/groups, *kernel)``, ``(C, K/groups, *kernel)`` of a transposed
                convolution, (columns, inner), or (batch, columns, inner).
            bias: (K,) or (columns,); None for none.
            convolution: :class:`~elision.products.ConvolutionParameters`, or a tuple of
                the first of them: stride, padding, dilation (one number an axis each) and
                groups; None for a matrix product.
            rows: rows of the weight that the products read, of a matrix product without
                forms; None: all.

        Returns:
            The output with its bias, ``(N, K, *sizes)`` or ``(rows, columns)``.

        Raises:
            ValueError: the operands are complex or integers.
            RuntimeError: a transform of ``torch.func`` (vmap, grad, jvp) takes gradients,
                or ``torch.jit.trace`` traces a layer that leaves something out.
        """
        if type(convolution) is tuple:
            convolution = ConvolutionParameters(*convolution)
        if torch.compiler.is_compiling():
            engine = self._elision_engine
            return self._plain_products(x, weight, bias, convolution, engine, rows=rows)
        with OWN_PRODUCTS:
            return self._products(x, weight, bias, convolution, rows)

    def _products(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: Any,
        rows: slice | None,
    ) -> Tensor:
        self._refuse(x, weight)
        if not x.numel() or not weight.numel():  # nothing to leave out; no state moves
            read = weight if rows is None else weight[rows]
            return dense.forward(as_plain(x), read, bias, convolution)
        again, recalled = self._recalled(x)

        def products(x: Tensor, weight: Tensor, engine: Engine) -> Tensor:
            return self._plain_products(
                as_plain(x), weight, bias, convolution, engine, recalled, again, rows
            )

        forms = self._elision_forms
        if not (self._elision_observers or self._elision_plan.changes):
            read = weight if rows is None else weight[rows]
            y = dense.forward(as_plain(x), read, bias, convolution)  # the plain layer
        elif self._elision_observers or forms is None or recalled:
            # The blocked form reads thresholds from the buffers alone.
            y = products(x, weight, self._elision_engine)
        else:
            y = forms.output(self, x, weight, bias, convolution, products)
        return offered(y) if self._elision_offers and is_usable(y, weight, bias) else y

    def _recalled(self, x: Tensor) -> tuple[bool, States]:
        """Whether this pass is computed again, and the state that the first one read."""
        again, calls = is_recomputation(), self._elision_calls
        if calls is not None and self._is_in_step:
            if again:
                return again, calls.recalled(x, self._elision_states())
            calls.remember(x, self._elision_states())
        return again, {}

    def _refuse(self, x: Tensor, weight: Tensor) -> None:
        """Raise for operands and callers that an elided layer cannot serve."""
        if not (x.is_floating_point() and weight.is_floating_point()):
            raise ValueError(
                f"{self._where}: its input is {x.dtype} and its weight {weight.dtype}; "
                "an elided layer computes real floating-point numbers, elision.restore "
                "gives the plain layer back"
            )
        if torch.is_grad_enabled() and torch._C._functorch.maybe_current_level():  # pyright: ignore[reportAttributeAccessIssue]
            raise RuntimeError(
                f"{self._where}: an elided layer has no gradients under torch.func (vmap, "
                "grad, jvp); use elision.restore, or torch.no_grad() inside of vmap"
            )
        if torch._C._is_tracing() and self._elision_plan.changes:  # pyright: ignore[reportAttributeAccessIssue]
            raise RuntimeError(
                f"{self._where}: torch.jit.trace would keep this pass's thresholds for "
                "all inputs; trace what elision.export.finalize or elision.restore gives"
            )

    @property
    def _where(self) -> str:
        return f"layer {self._elision_name or '(the model itself)'}"

    def _plain_products(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: Any,
        engine: Engine,
        recalled: States | None = None,
        again: bool = False,
        rows: slice | None = None,
    ) -> Tensor:
        kind = x.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        needs_gradient = torch.is_grad_enabled()
        is_in_step = self._is_in_step
        if is_in_step and self._has_unshaped_state():
            # As a plain tuple: torch.compile makes no constant of a named one.
            how = None if convolution is None else tuple(convolution)
            self._shape_states_of(tuple(x.shape), tuple(weight.shape), how)
        states = self._elision_states() | (recalled or {})
        x, weight = self._ahead(x, weight, states, is_in_step)
        part = None if rows is None else Rows(weight.detach(), rows)
        weight = weight if rows is None else weight[rows]
        step = Step(
            self._elision_plan,
            states,
            engine,
            x.shape,
            weight.shape,
            convolution,
            training=is_in_step,
            observers=self._elision_observers,
            name=self._elision_name,
            again=again,
            held=self._elision_held,
            rows=part,
        )
        if needs_gradient:
            products = _Products if self._elision_has_weight else _ProductsOfOperands
            return products.apply(x, weight, bias, step)  # pyright: ignore[reportReturnType]
        done: dict[str, Tensor] = {}
        if is_in_step and self._elision_plan.written:
            # A checkpointed pass is a step, too: all of its state moves here.
            step.read(Product.WEIGHT_GRAD, "input", x, done)
            step.read(Product.INPUT_GRAD, "weight", weight, done)
        x = step.read(Product.FORWARD, "input", x, done)
        weight = step.read(Product.FORWARD, "weight", weight, done)
        step.tell(Product.FORWARD, x, weight)
        return forward_product(step, x, weight, bias)

    def _ahead(
        self, x: Tensor, weight: Tensor, states: States, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Operands after the transforms that have gradients of their own."""
        plan, operands = self._elision_plan, {"input": x, "weight": weight}
        held = self._elision_held
        for operand, use in plan.ahead.items():
            if held is not None and operand == "weight" and held.weight is not None:
                operands[operand] = held.weight
                continue
            operands[operand] = plan.uses[use].differentiable(
                operands[operand], states[use], training
            )
            if held is not None and operand == "weight":
                held.weight = operands[operand]
        return operands["input"], operands["weight"]


def plan_of(layer: ElidedLayer) -> LayerPlan:
    """The plan of an elided layer: its table as uses."""
    return layer._elision_plan


def tied_reader(layer: nn.Module) -> str | None:
    """Name of the module for whose sake an elided layer stays dense; None: there is none."""
    return getattr(layer, "_elision_tied_to", None)


def states_of(layer: ElidedLayer, use: str) -> dict[str, Tensor]:
    """State tensors of one use of an elided layer, by state name; they are its buffers."""
    names, buffers = layer._elision_plan.buffers[use], layer._buffers
    return {
        state: buffers[name] if name in buffers else getattr(layer, name)  # pyright: ignore[reportReturnType]
        for state, name in names.items()
    }


def set_state(layer: ElidedLayer, use: str, state: str, value: Tensor) -> None:
    """Give a state tensor of an elided layer a value.

    Written in place where the shape stays; otherwise the buffer is replaced, on the
    device of the weight and in the old dtype.
    """
    name = buffer_name(use, state)
    holder: dict[str, Any] = (
        layer._buffers if name in layer._buffers else layer.__dict__
    )
    old: Tensor = holder[name]
    if old.shape == value.shape:
        old.copy_(value)
    else:
        holder[name] = value.to(layer.weight.device, old.dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
