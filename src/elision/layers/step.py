"""One forward call of one layer and its backward.

A :class:`Step` applies the transforms of the layer's plan; the layer's engine, or torch,
computes the products.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from elision.engines import Engine, Hint
from elision.layers import accumulated_product, compiled_product
from elision.layers.observation import Computed, Observation, Observer
from elision.layers.plan import ACCUMULATE, LayerPlan
from elision.operands import KEEP, TORCH, Accumulate
from elision.operands.split_reuse import shared_part
from elision.products import (
    Arithmetic,
    ConvolutionParameters,
    Geometry,
    LayerProduct,
    Product,
    dense,
    geometry_of,
)

__all__ = [
    "Held",
    "Rows",
    "Step",
    "forward_product",
    "gradient_products",
]


@dataclass
class Held:
    """What several calls of a layer in one pass read of its weight, transformed once.

    Attributes:
        read: by use.
        changed: the uses whose transform changed the weight.
        weight: after a transform that has a gradient of its own; None without one.
    """

    read: dict[str, Tensor] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    weight: Tensor | None = None


@dataclass(frozen=True)
class Rows:
    """Some rows of a weight, of which a product reads no others.

    Attributes:
        whole: the weight.
        chosen: the rows.
    """

    whole: Tensor
    chosen: slice


class Step:
    """One forward call of one layer and its backward: operands, products, observers.

    Each use of the plan is applied once.

    Args:
        plan: transforms of the layer's operands.
        states: state tensors of each use, by name.
        engine: engine of the layer's products.
        input: shape of the layer's input, ``(N, C, *sizes)`` or ``(rows, inner)``.
        weight: shape of its weight.
        convolution: parameters of a convolution; None for a linear layer.
        training: whether transforms may change their state.
        observers: called with an observation of every product.
        name: of the layer.
        again: whether the forward product is a recomputation, which no observer sees.
        held: what calls of the same pass share; None: this is the only one.
        rows: the rows of the weight that the products read; None: all. Transforms are of
            the whole weight.
        geometry: of the products, where the shapes do not tell it.
    """

    def __init__(
        self,
        plan: LayerPlan,
        states: dict[str, dict[str, Tensor]],
        engine: Engine,
        input: torch.Size,
        weight: torch.Size,
        convolution: ConvolutionParameters | None,
        *,
        training: bool,
        observers: tuple[Observer, ...] = (),
        name: str = "",
        again: bool = False,
        held: Held | None = None,
        rows: Rows | None = None,
        geometry: Geometry | None = None,
    ) -> None:
        self._geometry = geometry
        self.plan, self.states, self.engine = plan, states, engine
        self.input_shape, self.weight_shape = input, weight
        self.convolution = convolution
        self.training, self.observers, self.name = training, observers, name
        self.again = again
        self.held, self.rows = held, rows
        self._changed: set[str] = set()
        self._reused: dict[str, Tensor] = {}
        self.number: Tensor | None = None
        if plan.is_random:
            counter = states[ACCUMULATE]["step"]
            self.number = accumulated_product.number(counter, moves=training)

    def read(
        self, kind: Product, operand: str, x: Tensor, done: dict[str, Tensor]
    ) -> Tensor:
        """Operand ``x`` as product ``kind`` reads it: transformed, or as it is."""
        use = self.plan.use(kind, operand)
        transform = self.plan.uses[use]
        if transform == KEEP:
            return x
        if transform.own_gradient:  # its result is what came in
            if not torch.compiler.is_compiling():
                self._changed.add(use)
            return x
        rows = self.rows if operand == "weight" else None
        if rows is not None:
            x = rows.whole
        held = self.held if operand == "weight" else None
        if held is not None and use in held.read:
            done[use] = held.read[use]
            self._changed |= held.changed
        if use not in done:
            state = self.states[use]
            reused = transform.reused(state) if self._splits_reuse() else None
            done[use] = transform(x, list(state.values()), self.training)
            if reused is not None and reused.shape[1:] == x.shape[1:]:
                self._reused[use] = reused
            if not torch.compiler.is_compiling() and done[use] is not x:
                self._changed.add(use)
            if held is not None:
                held.read[use] = done[use]
                held.changed |= self._changed & {use}
        return done[use] if rows is None else done[use][rows.chosen]

    def read_runs(
        self, kind: Product, operand: str, x: Tensor, sizes: Sequence[int]
    ) -> Tensor:
        """An operand whose runs of ``sizes`` rows are transformed each by itself."""
        use = self.plan.use(kind, operand)
        transform = self.plan.uses[use]
        if transform == KEEP:
            return x
        state = list(self.states[use].values())
        read = transform.of_runs(x, sizes, state, self.training)
        if read is not x:
            self._changed.add(use)
        return read

    def native(self, kind: Product, first: Tensor, second: Tensor) -> Tensor | None:
        """The product by its accumulator, or by an engine that leaves zeros out.

        None: torch computes it, by the functions that a plain layer calls, so that a
        product with nothing left out is the plain layer's to the last bit.
        """
        sums = self.plan.accumulate(kind)
        if sums != TORCH:
            return self._accumulated(kind, sums, first, second)
        if not self.engine.leaves_zeros_out:
            return None
        if torch.compiler.is_compiling():
            return self._in_graph(kind, first, second)
        reused = self._reused.get(self.plan.use(kind, kind.operands[0]))
        if reused is not None:
            return self._native_with_reuse(kind, reused, first, second)
        sparse = next((o for o in kind.operands if self._sparsified(kind, o)), None)
        wanted = self.wanted() if kind is Product.WEIGHT_GRAD else None
        if sparse is None and wanted is None:
            return None
        return self._by_engine(kind, first, second, Hint(sparse, wanted))

    def _accumulated(
        self, kind: Product, sums: Accumulate, first: Tensor, second: Tensor
    ) -> Tensor:
        """The product summed as its cell says, whatever the engine."""
        number = self.number if sums.is_random else None
        if torch.compiler.is_compiling():
            return accumulated_product.in_graph(
                first,
                second,
                kind,
                sums,
                self.name,
                number,
                (
                    list(self.input_shape),
                    list(self.weight_shape),
                    compiled_product.numbers_of(self.convolution),
                ),
            )
        product = LayerProduct.unchecked(kind, self.geometry(), first, second)
        return accumulated_product.product(product, sums, self.name, number)

    def _by_engine(
        self, kind: Product, first: Tensor, second: Tensor, hint: Hint
    ) -> Tensor | None:
        """The product by the engine that the layer's chooses; None: torch's."""
        product = LayerProduct.unchecked(kind, self.geometry(), first, second)
        engine = self.engine.choose(product, hint)
        return engine.compute(product, hint) if engine.leaves_zeros_out else None

    def _splits_reuse(self) -> bool:
        """Whether a reused gradient's product is computed apart from the difference's."""
        return self.engine.leaves_zeros_out and not torch.compiler.is_compiling()

    def _in_graph(self, kind: Product, first: Tensor, second: Tensor) -> Any:
        """The product as a node of a compiled graph, if its recipe sets values to zero.

        The engine decides when the graph runs. A reused gradient cannot be split there, so
        torch computes its products.
        """
        hints = self.plan.in_graph[kind]
        if hints is None or first.dtype != torch.float32 or not first.is_cpu:
            return None
        sparse, use = hints
        return compiled_product.product(
            first,
            second,
            kind.value,
            sparse,
            None if use is None else self.plan.uses[use]._token,
            [] if use is None else list(self.states[use].values()),
            list(self.input_shape),
            list(self.weight_shape),
            compiled_product.numbers_of(self.convolution),
            self.engine.name,
        )

    def _native_with_reuse(
        self, kind: Product, reused: Tensor, first: Tensor, second: Tensor
    ) -> Tensor | None:
        """The product in two parts, the reused one computed once for the batch."""
        difference = first - reused  # exactly zero where nothing was added
        own = self._by_engine(kind, difference, second, Hint("grad_output"))
        if own is None:
            return None
        return own + shared_part(kind, reused, second, self.geometry())

    def _sparsified(self, kind: Product, operand: str) -> bool:
        """Whether a transform set values of an operand to zero in this call."""
        use = self.plan.use(kind, operand)
        return self.plan.uses[use].sparsifies and use in self._changed

    def wanted(self) -> Tensor | None:
        """Tensor that is zero where the weight gradient is not needed; None: all is."""
        use = self.plan.use(Product.FORWARD, "weight")
        wanted = self.plan.uses[use].wanted_gradient(self.states[use])
        if wanted is None or self.rows is None:
            return wanted
        return wanted.view(self.rows.whole.shape)[self.rows.chosen]

    def geometry(self) -> Geometry:
        """The layer's geometry in this call."""
        if self._geometry is not None:
            return self._geometry
        return _geometry_of(self.input_shape, self.weight_shape, self.convolution)

    def tell(self, kind: Product, first: Tensor, second: Tensor) -> None:
        """Call the observers, if there are any, with a product."""
        if not self.observers or (self.again and kind is Product.FORWARD):
            return
        uses = {o: self.plan.use(kind, o) for o in kind.operands}
        read = zip(kind.operands, (first, second), strict=True)
        work = {
            o: self.plan.uses[uses[o]].work(x, self.states[uses[o]]) for o, x in read
        }
        if kind is Product.WEIGHT_GRAD:
            masked_by = self.plan.use(Product.FORWARD, "weight")
            transform = self.plan.uses[masked_by]
            work["result"] = transform.gradient_work(self.states[masked_by])
        use = uses[kind.operands[0]]
        operands = (first.detach(), second.detach())
        arithmetic = self.plan.arithmetic(kind)
        observation = Observation(
            LayerProduct(
                kind,
                self.geometry(),
                *operands,
                self.name,
                arithmetic=_of_tensors(arithmetic, first, second),
            ),
            work=work,
            uses=uses,
            shared=self.plan.uses[use].shared(self.states[use]),
            recipe=self.plan.recipe,
            call=self,
        )
        for observer in self.observers:
            observer(observation)

    def show(
        self,
        kind: Product,
        first: Tensor,
        second: Tensor,
        result: Tensor,
        bias: Tensor | None = None,
    ) -> None:
        """Show the result of a product to the observers that ask for it."""
        for observer in self.observers:
            see = getattr(observer, "computed", None)
            if see is not None:
                whole = kind is not Product.WEIGHT_GRAD or self.wanted() is None
                see(
                    Computed(
                        kind,
                        first.detach(),
                        second.detach(),
                        result,
                        bias,
                        self.convolution,
                        self.name,
                        whole,
                    )
                )


#: Number formats of tensors that autocast or a model's own dtype made narrower.
_NARROW = {torch.bfloat16: "bf16", torch.float16: "fp16"}


def _of_tensors(arithmetic: Arithmetic, first: Tensor, second: Tensor) -> Arithmetic:
    """Formats of a product whose operands may be narrower than float32 as tensors."""
    own = (arithmetic.first, arithmetic.second)
    found = (
        name if name != "fp32" else _NARROW.get(x.dtype, "fp32")
        for name, x in zip(own, (first, second), strict=True)
    )
    return replace(arithmetic, **dict(zip(("first", "second"), found, strict=True)))


#: Layers ask at every step; their shapes are few.
_geometry_of = functools.lru_cache(maxsize=1024)(geometry_of)


def forward_product(step: Step, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """``Y`` from (X, W), and the bias."""
    y = step.native(Product.FORWARD, x, w)
    if y is None:
        y = dense.forward(x, w, bias, step.convolution)
    elif bias is not None:
        y = y + bias.view(-1, *[1] * (y.dim() - 2))
    step.show(Product.FORWARD, x, w, y, bias)
    return y


def gradient_products(
    step: Step,
    grads: tuple[Tensor, Tensor],
    x: Tensor | None,
    w: Tensor | None,
    bias: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """``dX`` from (G, W), ``dW`` from (G, X), and ``db`` from G if ``bias`` is true.

    An absent operand means an absent result; ``bias`` requires that both products read
    the same G.
    """
    for_input, for_weight = grads
    dx = None if w is None else step.native(Product.INPUT_GRAD, for_input, w)
    dw = None if x is None else step.native(Product.WEIGHT_GRAD, for_weight, x)
    # Torch computes the others.
    own_x, own_w = (x if dw is None else None), (w if dx is None else None)
    shared = for_input is for_weight  # one call computes all gradients of one G
    first = _dense_gradients(step, for_input, own_x if shared else None, own_w, bias)
    other = first if shared else _dense_gradients(step, for_weight, own_x, None, False)
    dx = dx if own_w is None else first[0]
    dw = dw if own_x is None else other[1]
    if dx is not None and w is not None:
        step.show(Product.INPUT_GRAD, for_input, w, dx)
    if dw is not None and x is not None:
        step.show(Product.WEIGHT_GRAD, for_weight, x, dw)
    return dx, dw, first[2]


def _dense_gradients(
    step: Step, g: Tensor, x: Tensor | None, w: Tensor | None, bias: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Torch's gradients; an absent operand means an absent result."""
    shapes = (step.input_shape, step.weight_shape)
    return dense.gradients(g, x, w, step.convolution, shapes=shapes, bias=bias)
