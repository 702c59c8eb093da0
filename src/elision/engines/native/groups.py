"""Grouped convolutions: one plain convolution per group, one after the other."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from elision.products import Conv2dGeometry, Product

__all__ = ["LEAST_CHANNELS", "group_by_group", "wide_enough"]

#: Fewest channels of a group, in and out, for which zeros are left out (an own choice).
#: Narrower groups, such as depthwise ones, are computed densely: converting the layout of
#: a few channels costs what their zeros save.
LEAST_CHANNELS = 32


def wide_enough(conv: Conv2dGeometry) -> bool:
    """Whether a convolution's groups, if it has any, are worth leaving zeros out of."""
    narrowest = min(conv.in_channels, conv.out_channels) // conv.groups
    return conv.groups == 1 or narrowest >= LEAST_CHANNELS


def group_by_group(
    kind: Product,
    conv: Conv2dGeometry,
    tensors: Mapping[str, torch.Tensor],
    compute: Callable[..., torch.Tensor | None],
) -> torch.Tensor | None:
    """A product of a grouped convolution, one group after the other.

    Args:
        kind: which of the three products.
        conv: the layer.
        tensors: the operands by name, and ``"wanted"`` if there is one.
        compute: called for each group with its geometry and its part of each tensor,
            in the order of ``tensors``.

    Returns:
        The product; None as soon as ``compute`` returns None.
    """
    part = replace(
        conv,
        in_channels=conv.in_channels // conv.groups,
        out_channels=conv.out_channels // conv.groups,
        groups=1,
    )
    ranges = (t.chunk(conv.groups, _axis(name)) for name, t in tensors.items())
    results = []
    for own in zip(*ranges, strict=True):
        result = compute(part, *own)
        if result is None:
            return None
        results.append(result)
    return torch.cat(results, _axis(kind.absent))


def _axis(name: str) -> int:
    """Axis of a tensor along which its groups are concatenated."""
    return 0 if name in {"weight", "wanted"} else 1
