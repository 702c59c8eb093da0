"""Sparse layers in the native kernels' layout, inside the user's own program.

Product by product, a native layer pays for two changes of layout, and normalisation,
ReLU and residual sums between the layers run as they did. A layer whose recipe makes its
weight sparse therefore returns its output in the kernels' layout, as a tensor that the
next such layer, and what usually lies between, take as it is
(:mod:`elision.engines.native.blocked.tensor`). The model's own ``forward`` runs at every
step; whatever else it does with such a tensor meets a plain one.

A layer computes as plain layers do while somebody observes its products or replaces what
is saved for the backward pass, under ``torch.compile`` and other tracers, for other
dtypes and devices than float32 on the CPU, and where the engine ``auto`` found another
form faster (:mod:`elision.layers.forms`).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from elision.engines.native import library
from elision.engines.native.blocked.layer import KeptThreshold, Sparsity
from elision.engines.native.blocked.tensor import BlockedTensor
from elision.layers.plan import buffer_name
from elision.operands import KEEP
from elision.operands.blocked_form import LargestForm, MaskForm
from elision.products import Product

__all__ = ["has_kernels", "is_usable", "sparsity_of"]


def is_usable(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the operands are plain data that the kernels can read."""
    return (
        type(x) in (Tensor, nn.Parameter, BlockedTensor)
        and type(weight) in (Tensor, nn.Parameter)
        and weight.dtype == torch.float32
        and (bias is None or bias.dtype == torch.float32)
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and (x.dtype == torch.float32 or torch.is_autocast_enabled("cpu"))
        and x.device.type == weight.device.type == "cpu"
        and x.numel() > 0
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and not torch._C._functorch.maybe_current_level()  # pyright: ignore
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None  # pyright: ignore
    )


def has_kernels(x: Tensor, weight: Tensor, convolution: Any) -> bool:
    """Whether the kernels have a way for a product; operands that do not fit have none.

    Torch refuses these in a user's words.

    Args:
        x: ``(N, C, *sizes)`` or ``(rows, inner)``.
        weight: ``(K, C/groups, *kernel)`` or ``(columns, inner)``.
        convolution: parameters of a convolution; None for a linear layer. The layout is
            that of images of two axes, and no transposed convolution has a kernel.
    """
    if convolution is not None and (convolution.transposed or x.dim() != 4):
        return False
    if x.shape[1] != weight.shape[1]:
        return False  # groups, too
    if convolution is None:
        return True
    _, padding, dilation, *_ = convolution
    reach = zip(x.shape[2:], weight.shape[2:], padding, dilation, strict=True)
    fits = all(n + 2 * p > d * (k - 1) for n, k, p, d in reach)
    return fits and math.prod(weight.shape[2:]) <= library.MOST_TAPS


def sparsity_of(layer: Any) -> Sparsity | None:
    """The sparsity of a layer's blocked form; None if an elided layer has no such form.

    Supported: (1) weight masked or top-k, the same in forward and dX; (2) input whole, or
    top-k in dW under a top-k weight; (3) gradient whole.
    """
    plan = layer._elision_plan
    weight = plan.use(Product.FORWARD, "weight")
    input = plan.use(Product.WEIGHT_GRAD, "input")
    whole = (
        (Product.FORWARD, "input"),
        (Product.INPUT_GRAD, "grad_output"),
        (Product.WEIGHT_GRAD, "grad_output"),
    )
    one = plan.use(Product.INPUT_GRAD, "weight") == weight
    kept = all(plan.transform(*cell) == KEEP for cell in whole)
    if not (one and kept):
        return None
    inner, outer = plan.uses[input], plan.uses[weight]
    by_input, by_weight = inner.blocked_form(), outer.blocked_form()
    match by_weight, by_input:
        case LargestForm(), LargestForm() if (
            by_weight.keep < 1 and by_weight.samples == by_input.samples
        ):
            return Sparsity(
                weight_keep=by_weight.keep,
                weight_threshold=_kept(weight, by_weight),
                samples=by_weight.samples,
                input_keep=by_input.keep,
                input_threshold=_kept(input, by_input),
            )
        case LargestForm(), None if by_weight.keep < 1 and inner == KEEP:
            return Sparsity(
                weight_keep=by_weight.keep,
                weight_threshold=_kept(weight, by_weight),
                samples=by_weight.samples,
            )
        case MaskForm(), None if inner == KEEP:
            return Sparsity(
                mask=buffer_name(weight, by_weight.mask),
                gradient=buffer_name(weight, by_weight.gradient_density),
            )
    return None


def _kept(use: str, form: LargestForm) -> KeptThreshold | None:
    """The buffers of a threshold that is kept between steps; None if none is."""
    if form.threshold is None or form.step is None:
        return None
    threshold, step = buffer_name(use, form.threshold), buffer_name(use, form.step)
    return KeptThreshold(threshold, step, form.refresh)
