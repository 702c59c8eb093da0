"""A sparse layer in the blocked layout: its thresholds and masks, call by call."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.checks import integer, number
from elision.engines.native import library
from elision.engines.native.blocked import functions as functions  # registers them
from elision.engines.native.blocked.convolution import SparseCall, convolve
from elision.engines.native.blocked.layer_lists import LayerLists
from elision.engines.native.blocked.tensor import BlockedTensor, as_plain
from elision.products import Conv2dGeometry, ConvolutionParameters

__all__ = ["KeptThreshold", "SparseLayer", "Sparsity"]


@dataclass(frozen=True)
class KeptThreshold:
    """A threshold that is kept in a layer's buffers between refreshes.

    Attributes:
        threshold: name of the buffer that holds it.
        step: name of the buffer that counts the passes in training.
        refresh: passes between two refreshes.
    """

    threshold: str
    step: str
    refresh: int


@dataclass(frozen=True)
class Sparsity:
    """The part of a layer's operands that its products read.

    Attributes:
        weight_keep: fraction of the weights that forward and input gradient read, the
            largest; ignored under a mask.
        input_keep: fraction of the input that the weight gradient reads, the largest.
        samples: values that thresholds are estimated from; None for exact thresholds.
        mask: name of the buffer that holds a mask of the weight's shape: weights where
            it is zero are out of forward and input gradient, and out of the weight
            gradient unless ``gradient`` says otherwise. None: no mask.
        gradient: name of the buffer with the share of the weight gradient that is
            computed; 1 means all of it, mask or not. None: the mask's.
        weight_threshold: where the weight's threshold is kept; None: found anew at each
            pass.
        input_threshold: the same for the input.

    Raises:
        ValueError: a fraction is not in (0, 1], or ``samples`` is not positive.
    """

    weight_keep: float = 1.0
    input_keep: float = 1.0
    samples: int | None = None
    mask: str | None = None
    gradient: str | None = None
    weight_threshold: KeptThreshold | None = None
    input_threshold: KeptThreshold | None = None

    def __post_init__(self) -> None:
        for name in ("weight_keep", "input_keep"):
            number("Sparsity", name, getattr(self, name), "(0, 1]")
        if self.samples is not None:
            integer("Sparsity", "samples", self.samples)


class SparseLayer:
    """The blocked form of one layer; holds the lists of its weight between calls.

    Args:
        sparsity: what the products read.
    """

    def __init__(self, sparsity: Sparsity) -> None:
        self.sparsity = sparsity
        self._lists = LayerLists()

    def __reduce__(self) -> Any:
        """Copies start with lists of their own."""
        return functools.partial(SparseLayer, self.sparsity), ()

    def run(
        self,
        layer: nn.Module,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: ConvolutionParameters | None,
    ) -> Tensor:
        """Output of the layer: blocked of a convolution, plain of a linear layer.

        Args:
            layer: whose buffers hold masks and thresholds.
            x: ``(N, C, H, W)``, plain or blocked, or plain ``(rows, inner)``.
            weight: ``(K, C, R, S)`` or ``(columns, inner)``.
            bias: ``(K,)`` or None.
            convolution: parameters of a plain convolution without groups; None for a
                linear layer, which is computed as a convolution of 1x1 images.
        """
        linear = convolution is None
        if linear:
            x, weight = as_plain(x)[..., None, None], weight[..., None, None]
        stride, padding, dilation, *_ = convolution or (1, 0, 1)
        geometry = Conv2dGeometry.of(
            tuple(x.shape),
            tuple(weight.shape),
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        y = self._run(layer, x, weight, bias, geometry, plain=linear)
        return y.flatten(1) if linear else y

    def _run(
        self,
        layer: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Conv2dGeometry,
        *,
        plain: bool,
    ) -> Tensor:
        s, buffers = self.sparsity, layer._buffers
        mask = None if s.mask is None else buffers[s.mask].view(weight.shape)
        weight_threshold = None
        if mask is None:
            weight_threshold = self._threshold(
                layer, s.weight_threshold, weight, s.weight_keep
            )
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else torch.float32
        call = SparseCall(
            self._lists,
            geometry,
            mask,
            None if s.gradient is None else buffers[s.gradient],
            weight_threshold,
            self._threshold(layer, s.input_threshold, x, s.input_keep),
            dtype == torch.float16 and library.multiplies_halves(),
            dtype,
            plain,
        )
        return convolve(x, weight, bias, call)

    def _threshold(
        self, layer: nn.Module, kept: KeptThreshold | None, x: Tensor, keep: float
    ) -> Tensor | None:
        """Magnitude that a value must reach to be read; None: not zero."""
        if keep >= 1:
            return None
        samples = self.sparsity.samples
        if kept is None or not layer.training or torch.is_inference_mode_enabled():
            return _found(x, keep, samples)
        threshold = layer._buffers[kept.threshold]
        step = layer._buffers[kept.step]
        assert threshold is not None
        assert step is not None
        # The buffer may move before the backward pass; it may be a double.
        level = threshold.to(torch.float32, copy=True)
        if step.item() % kept.refresh == 0:
            level = _found(x, keep, samples)
            if torch.isfinite(level):
                threshold.copy_(level)
        step.add_(1)
        return level


@torch.no_grad()
def _found(x: Tensor, keep: float, samples: int | None) -> Tensor:
    """The ``ceil(keep·n)``-th largest magnitude of ``n`` values, a scalar tensor.

    Args:
        x: plain or blocked.
        keep: in (0, 1].
        samples: values that it is estimated from; None for the exact one.
    """
    if isinstance(x, BlockedTensor):
        value = x.storage_.value
        memory = value.blocked()
        if value.images % library.LANES:  # lanes after the last image are no values
            memory = library.from_blocked(memory, value.images)
    else:
        memory = x.detach()
    above = library.threshold(memory, keep, samples)
    # As the values that are compared: whatever the program's default dtype and device.
    found = torch.tensor(max(above, 0.0), dtype=torch.float32, device="cpu")
    return torch.nextafter(found, found.new_tensor(torch.inf)) if above >= 0 else found
