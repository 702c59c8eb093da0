"""Sparse convolutions and linear layers of blocked and plain tensors, with gradients."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elision.engines.native import library
from elision.engines.native.blocked.layer_lists import LayerLists, above
from elision.engines.native.blocked.tensor import BlockedTensor
from elision.engines.native.blocked.values import Biased, Stored, Value
from elision.products import Conv2dGeometry

__all__ = ["SparseCall", "convolve"]


@dataclass(frozen=True)
class SparseCall:
    """One call of a sparse layer: what it leaves out, in which form the result comes.

    Attributes:
        lists: the lists of the layer's weight.
        geometry: stride, padding and dilation of the layer, and this call's shapes.
        mask: of the weight's shape, zero where a weight is left out; None: no mask.
        gradient_share: scalar, the share of the weight gradient that is computed under
            a mask; below 1 it is the mask's. None: the mask's.
        weight_threshold: scalar, magnitude that a weight must reach to be read; None:
            all that is not zero.
        input_threshold: the same for the input of the weight gradient.
        halves: whether products with the weight, or at the mask, are of halves.
        dtype: of the result.
        plain: whether the result is a plain tensor.
    """

    lists: LayerLists
    geometry: Conv2dGeometry
    mask: Tensor | None
    gradient_share: Tensor | None
    weight_threshold: Tensor | None
    input_threshold: Tensor | None
    halves: bool
    dtype: torch.dtype
    plain: bool

    def made(self, weight: Tensor, **products: bool) -> Any:
        """Context of the weight's lists for the named products."""
        return self.lists.made(
            *(self.geometry, weight, self.mask, self.weight_threshold, self.halves),
            **products,
        )

    @property
    def gradient_is_masked(self) -> bool:
        """Whether the weight gradient is that of the mask alone."""
        share = self.gradient_share
        return self.mask is not None and (share is None or share.item() < 1)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, call: SparseCall
) -> Tensor:
    """Convolution of a plain or blocked input with a sparse weight, and the bias.

    Forward and input gradient read the weights under the call's mask, or those that
    reach its threshold. The weight gradient is exact at the mask and zero elsewhere; or,
    without a mask or where more is wanted, dense, of the input that reaches the call's
    threshold. The bias gradient is that of the whole output gradient.

    Args:
        x: ``(N, C, H, W)``.
        weight: float32 ``(K, C, R, S)``.
        bias: ``(K,)`` or None.
        call: the rest.
    """
    return _Convolution.apply(x, weight, bias, call)  # pyright: ignore[reportReturnType]


class _Convolution(torch.autograd.Function):
    #: Roles of what is saved, in order, for ``elision.memory``.
    saved_roles = ("linear input", "weight")

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: SparseCall
    ) -> Tensor:
        value = _read(x, slot=0)
        with call.made(weight, input_grad=False) as lists:
            y = lists.forward(value, slot=1 if call.plain else None)
        ctx.call = call
        needs_dw = ctx.needs_input_grad[1]
        ctx.save_for_backward(x if needs_dw else None, weight)
        ctx.input_was_blocked = isinstance(x, BlockedTensor)
        ctx.input_dtype = x.dtype
        if needs_dw and isinstance(x, BlockedTensor):
            x.storage_.evict()
        images = call.geometry.batch
        if call.plain:
            y = library.from_blocked(y, images)
            if bias is not None:
                y += bias.view(-1, 1, 1)
            return y.to(call.dtype)
        result: Value = Stored(y, images)
        if bias is not None:
            # The bias may change before the sum is read; no version tells.
            result = Biased(result, bias.detach().to(torch.float32, copy=True))
        return BlockedTensor.of(result, call.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        call: SparseCall = ctx.call
        x, weight = ctx.saved_tensors
        needs_dx, needs_dw, needs_db, _ = ctx.needs_input_grad
        if isinstance(gradient, BlockedTensor):
            value = gradient.storage_.value
            g, centred = value.blocked(), value.sums_to_zero
        else:
            g, _ = library.to_blocked(gradient, slot=0)
            centred = False
        dx = dw = db = None
        if needs_dw:
            read = _read(x, slot=1)
            if call.gradient_is_masked:
                with call.made(weight) as lists:
                    dw = lists.masked_grad(read, g)
            else:
                dw, _ = library.weight_grad(
                    *(call.geometry, read, g),
                    sparse="input",
                    above=above(call.input_threshold),
                )
            del read
            if isinstance(x, BlockedTensor):
                x.storage_.evict()
        if needs_dx:
            slot = None if ctx.input_was_blocked else 1
            with call.made(weight, forward=False) as lists:
                memory = lists.input_grad(g, slot=slot)
            images = call.geometry.batch
            if ctx.input_was_blocked:
                dx = BlockedTensor.of(Stored(memory, images), ctx.input_dtype)
            else:
                dx = library.from_blocked(memory, images).to(ctx.input_dtype)
        if needs_db:
            db = _bias_gradient(gradient, g, centred)
        return dx, dw, db, None


def _read(x: Tensor, slot: int) -> Tensor:
    """The blocked input; that of a plain one lies in a workspace."""
    if isinstance(x, BlockedTensor):
        return x.storage_.value.blocked()
    return library.to_blocked(x, slot=slot)[0]


def _bias_gradient(gradient: Tensor, g: Tensor, centred: bool) -> Tensor:
    if centred:  # a normalisation after the layer removes what the bias adds
        return g.new_zeros(g.shape[1])
    if not isinstance(gradient, BlockedTensor):
        return gradient.float().sum([0, 2, 3])
    return g.sum([0, 2, 3, 4])
