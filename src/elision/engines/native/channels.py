"""A gradient with whole channels of zeros: the smaller dense product of the others."""

import math
from dataclasses import replace

import torch

from elision.products import Conv2dGeometry, Product

__all__ = ["MOST_LIVE", "is_finite", "product_of_live_channels"]

#: Share of live channels up to which they are gathered (an own choice).
MOST_LIVE = 0.5


def product_of_live_channels(
    kind: Product, conv: Conv2dGeometry, gradient: torch.Tensor, other: torch.Tensor
) -> torch.Tensor | None:
    """``dX`` or ``dW``, computed by torch from the channels of ``G`` that are not zero.

    Exact: the product of a channel of zeros is zero.

    Args:
        kind: input gradient or weight gradient.
        conv: the layer, without groups.
        gradient: ``G``, of shape ``(N, K, P, Q)``.
        other: ``W`` or ``X``.

    Returns:
        The gradient; None if too many channels are live (see :data:`MOST_LIVE`), or if
        ``other`` is not finite: in a dense product, zeros spread infinities as NaN.
    """
    most = MOST_LIVE * conv.out_channels
    if _live(gradient[:1]).sum() > most:  # one image tells most that are not structured
        return None
    live = _live(gradient).nonzero().squeeze(1)
    if live.numel() > most or not is_finite(other):
        return None
    if not live.numel():
        return gradient.new_zeros(conv.shape_of(kind.absent))
    smaller = replace(conv, out_channels=live.numel())
    gradient = gradient[:, live]
    if kind is Product.INPUT_GRAD:
        return smaller.compute(kind, gradient, other[live])
    dw = gradient.new_zeros(conv.shape_of("weight"))
    dw[live] = smaller.compute(kind, gradient, other)
    return dw


def is_finite(x: torch.Tensor) -> bool:
    """Whether no value is infinite or NaN, as far as a float32 sum shows."""
    return math.isfinite(x.sum(dtype=torch.float32).item())


def _live(gradient: torch.Tensor) -> torch.Tensor:
    """Mask over the channels: True where a channel has a non-zero value."""
    return (gradient != 0).flatten(2).any(2).any(0)
