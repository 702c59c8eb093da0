"""The elided form of ``torch.nn.Embedding``.

The forward product is a lookup of rows, the weight gradient a sum of the gradients of
equal rows; there is no input gradient. A transform of the weight sees the whole table
once a call, unless each of its values follows from the one in its place alone: then it
sees the rows that are looked up. What is recorded is in
:class:`~elision.products.LookupGeometry`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.fx import Proxy

from elision.common.selecting import select
from elision.layers import accumulated_product
from elision.layers.modules.base import ElidedLayer
from elision.layers.recomputation import OWN_PRODUCTS
from elision.layers.step import Step
from elision.operands import TORCH, Mask
from elision.products import LayerProduct, LookupGeometry, MatmulGeometry, Product

__all__ = ["ElidedEmbedding"]


class ElidedEmbedding(ElidedLayer, nn.Embedding):
    """An ``Embedding`` whose table and gradient a recipe transforms.

    All of torch's options stay: ``max_norm`` is that of the parameter, in place, before
    the recipe; ``padding_idx``, ``scale_grad_by_freq`` and ``sparse`` are those of the
    gradient, after it.

    Example:
        >>> import elision
        >>> emb = elision.elide(nn.Embedding(9, 4), elision.methods.Static(0.5, dense=()))
        >>> emb(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 4])
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        if isinstance(input, Proxy):
            return self._elision_traced(input)
        plan = self._elision_plan
        if not (self._elision_observers or plan.changes) or not input.numel():
            return super().forward(input)
        if torch.compiler.is_compiling() and not plan.accumulates:
            return self._looked_up(input)
        return self._alone(input)

    # The rows that a sum in an accumulator has are known when it is computed.
    @torch._disable_dynamo  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    def _alone(self, input: Tensor) -> Tensor:
        with OWN_PRODUCTS:
            return self._looked_up(input)

    def _looked_up(self, input: Tensor) -> Tensor:
        weight: Tensor = self.weight
        compiling = torch.compiler.is_compiling()
        if not compiling:
            self._refuse(weight, weight)
        if self.max_norm is not None:
            with torch.no_grad():
                torch.embedding_renorm_(
                    weight, input.contiguous(), self.max_norm, self.norm_type
                )
        places = input.reshape(1, -1)
        again, recalled = (False, {}) if compiling else self._recalled(places)
        states = self._elision_states() | recalled
        training = self._is_in_step
        _, weight = self._ahead(places, weight, states, training)
        rows, width = places.numel(), weight.shape[1]
        step = Step(
            self._elision_plan,
            states,
            self._elision_engine,
            torch.Size((rows, 1)),
            weight.shape,
            None,
            training=training,
            observers=self._elision_observers,
            name=self._elision_name,
            again=again,
            geometry=LookupGeometry(rows, width) if self._elision_observers else None,
        )
        options = (
            -1 if self.padding_idx is None else self.padding_idx,
            self.scale_grad_by_freq,
            self.sparse and not self._elision_plan.ahead,
        )
        found = _Lookup.apply(weight, places[0], step, options)
        return found.view(*input.shape, width)  # pyright: ignore[reportOptionalMemberAccess]


class _Lookup(torch.autograd.Function):
    """The two products of an embedding, each reading what its recipe says."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        places: Tensor,
        step: Step,
        options: tuple[int, bool, bool],
    ) -> Tensor:
        ctx.save_for_backward(places)
        ctx.step, ctx.options, ctx.entries = step, options, weight.shape[0]
        rows = _rows(step, weight, places)
        if step.observers:
            step.tell(Product.FORWARD, rows.new_ones(len(rows), 1), rows)
        sums = step.plan.accumulate(Product.FORWARD)
        return rows if sums == TORCH else _each(step, rows)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        if torch.compiler.is_compiling():
            return _Lookup._gradient(ctx, *grad_outputs)
        with OWN_PRODUCTS:
            return _Lookup._gradient(ctx, *grad_outputs)

    @staticmethod
    def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        step: Step = ctx.step
        padding, by_frequency, sparse = ctx.options
        (places,) = ctx.saved_tensors
        grad = step.read(Product.WEIGHT_GRAD, "grad_output", grad, {})
        # A graph cannot ask a rule what it needs: there, the whole gradient is computed.
        wanted = None if torch.compiler.is_compiling() else step.wanted()
        if wanted is not None:
            grad = select(grad, wanted.view(ctx.entries, -1)[places] != 0)
        if step.observers:
            told = grad.masked_fill((places == padding).unsqueeze(1), 0)
            step.tell(Product.WEIGHT_GRAD, told, told.new_ones(len(told), 1))
        if step.plan.accumulate(Product.WEIGHT_GRAD) != TORCH:
            own = _summed(step, grad, places, ctx.entries, padding, by_frequency)
        else:
            own = torch.ops.aten.embedding_backward(
                grad, places, ctx.entries, padding, by_frequency, sparse
            )
        return own, None, None, None


def _rows(step: Step, weight: Tensor, places: Tensor) -> Tensor:
    """The rows of the table that are looked up, as the product reads them."""
    use = step.plan.use(Product.FORWARD, "weight")
    transform = step.plan.uses[use]
    if isinstance(transform, Mask):
        mask, rows = step.states[use]["mask"], F.embedding(places, weight)
        return select(rows, mask[places]) if mask.numel() else rows
    if transform.pointwise and not (transform.state_names or transform.own_gradient):
        return step.read(
            Product.FORWARD, "weight", F.embedding(places, weight), {}
        ).clone()
    return F.embedding(places, step.read(Product.FORWARD, "weight", weight, {}))


def _each(step: Step, rows: Tensor) -> Tensor:
    """The rows as sums of one term each, by the accumulator of the forward product."""
    values = rows.reshape(-1, 1)
    product = LayerProduct.unchecked(
        Product.FORWARD,
        MatmulGeometry(1, 1, len(values)),
        values.new_ones(1, 1),
        values,
    )
    sums = step.plan.accumulate(Product.FORWARD)
    found = accumulated_product.product(product, sums, step.name, step.number)
    return found.view(rows.shape)


def _summed(
    step: Step,
    grad: Tensor,
    places: Tensor,
    entries: int,
    padding: int,
    by_frequency: bool,
) -> Tensor:
    """The table's gradient by the accumulator of the weight gradient.

    The product with the one-hot input, of which the columns without a one are left out:
    the sums of the others, and their order, are the same.
    """
    used, column, count = places.unique(return_inverse=True, return_counts=True)
    if by_frequency:
        grad = grad / count[column].unsqueeze(1)
    hot = F.one_hot(column, len(used)).to(grad.dtype)
    product = LayerProduct.unchecked(
        Product.WEIGHT_GRAD,
        MatmulGeometry(len(grad), len(used), grad.shape[1]),
        grad,
        hot,
    )
    sums = step.plan.accumulate(Product.WEIGHT_GRAD)
    found = accumulated_product.product(product, sums, step.name, step.number)
    result = grad.new_zeros(entries, grad.shape[1])
    result[used] = found.T
    if padding >= 0:
        result[padding] = 0
    return result
