"""Sparse layers in the native kernels' layout, inside the user's own program.

Product by product, a native layer pays for two changes of layout, and normalisation,
ReLU and residual sums between the layers run as they did. A layer whose recipe makes its
weight sparse therefore returns its output in the kernels' layout, as a tensor that the
next such layer, and what usually lies between, take as it is
(:mod:`elision.engines.native.blocked.tensor`). The model's own ``forward`` runs at every
step; whatever else it does with such a tensor meets a plain one.

A layer computes as plain layers do while somebody observes its products or replaces what
is saved for the backward pass, under ``torch.compile`` and other tracers, for other
dtypes and devices than float32 on the CPU, and where the engine ``auto`` found its plain
form faster.
"""

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.restoring import restored
from elision.common.timing import fastest
from elision.engines import Decision, decisions
from elision.engines.auto import (
    LEAST_MACS,
    LEVELS,
    TRYING,
    density_level,
    level_of,
)
from elision.engines.native import library
from elision.engines.native.blocked.layer import KeptThreshold, SparseLayer, Sparsity
from elision.engines.native.blocked.tensor import BlockedTensor, as_plain
from elision.layers.plan import buffer_name
from elision.operands import KEEP
from elision.operands.blocked_form import LargestForm, MaskForm
from elision.products import Product, geometry_of

__all__ = ["BlockedLayer", "is_usable", "sparsity_of"]


class BlockedLayer:
    """The blocked form of one elided layer, and the choice between it and the plain one.

    Args:
        sparsity: what the layer's products read.
        timed: whether the blocked form computes only where it was faster.
    """

    def __init__(self, sparsity: Sparsity, *, timed: bool) -> None:
        self.sparsity, self.timed = sparsity, timed
        self._layer = SparseLayer(sparsity)
        self._known: tuple[Any, float] = (None, 1.0)

    def __reduce__(self) -> Any:
        """Copies start with lists and choices of their own."""
        return functools.partial(BlockedLayer, self.sparsity, timed=self.timed), ()

    def output(
        self,
        layer: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: Any,
        plain: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor | None:
        """The layer's output; None where its plain form is to compute it.

        Args:
            layer: the layer, for its buffers and mode.
            x: ``(N, C, H, W)`` or ``(rows, inner)``.
            weight: its weight.
            bias: its bias.
            convolution: stride, padding, dilation and groups; None for a linear layer.
            plain: the plain form, of an input and a weight.
        """
        if not is_usable(x, weight, bias) or not _has_kernels(x, weight, convolution):
            return None
        blocked = partial(self._layer.run, layer, bias=bias, convolution=convolution)
        if self.timed and not self._is_faster(
            layer, x, weight, convolution, blocked, plain
        ):
            return None
        return blocked(x, weight)

    def _is_faster(
        self,
        layer: Any,
        x: Tensor,
        weight: Tensor,
        convolution: Any,
        blocked: Callable[[Tensor, Tensor], Tensor],
        plain: Callable[[Tensor, Tensor], Tensor],
    ) -> bool:
        geometry = geometry_of(tuple(x.shape), tuple(weight.shape), convolution)
        if geometry.dense_macs < LEAST_MACS:
            return False
        density = self._density(layer)
        if density == LEVELS[0] or library.unavailable() is not None:
            return False
        layout = "blocked" if isinstance(x, BlockedTensor) else "plain"
        back = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        question = (
            f"{'step' if back else 'forward pass'} of {geometry.description}, {layout} "
            f"input, weight at density {density:g}, {layer._elision_plan.recipe}, "
            f"{_dtype_words()}{torch.get_num_threads()} threads"
        )
        known = decisions()
        decision = known.find(question)
        if decision is None:
            candidates = {
                "blocked": partial(_pass, blocked, x, weight, back),
                "plain": partial(_pass, plain, x, weight, back),
            }
            with TRYING, restored(layer, random_state=True):
                seconds = fastest(candidates, 3)
            decision = known.add(Decision(question, seconds))
        return decision.winner == "blocked"

    def _density(self, layer: Any) -> float:
        """Level of the weight's density, which the choice is made for."""
        if self.sparsity.mask is None:
            return level_of(self.sparsity.weight_keep)
        mask = layer._buffers[self.sparsity.mask]
        key = (id(mask), mask._version)
        if self._known[0] != key:
            self._known = (key, density_level(mask))
        return self._known[1]


def _pass(
    form: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, back: bool
) -> None:
    """One pass through a form of a layer, and back; nothing is kept.

    A plain input is paid for with two changes of layout, as if no neighbour were blocked.
    """
    given = (x.detach(), weight.detach())
    wants = [t.requires_grad for t in (x, weight)]
    for tensor, wanted in zip(given, wants, strict=True):
        tensor.requires_grad_(wanted and back)
    with torch.set_grad_enabled(back):
        y = form(*given)
        if not isinstance(x, BlockedTensor):
            y = as_plain(y)
    if back:
        wanted = [t for t in given if t.requires_grad]
        torch.autograd.grad(y, wanted, torch.ones_like(y))


def _dtype_words() -> str:
    if not torch.is_autocast_enabled("cpu"):
        return ""
    dtype = torch.get_autocast_dtype("cpu")
    return f"autocast to {dtype}, ".replace("torch.", "")


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


def _has_kernels(x: Tensor, weight: Tensor, convolution: Any) -> bool:
    """Whether the kernels have a way for a product; operands that do not fit have none.

    Torch refuses these in a user's words.
    """
    if x.shape[1] != weight.shape[1]:
        return False  # groups, too
    if convolution is None:
        return True
    _, padding, dilation, _ = convolution
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
