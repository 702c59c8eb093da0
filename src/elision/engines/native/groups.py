"""A grouped convolution: one plain convolution after the other, each of a group."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from elision.products import Conv2dGeometry, Product

__all__ = ["LEAST_CHANNELS", "group_by_group", "wide_enough"]

#: Channels of a group, in and out, from which on its zeros are left out (an own choice).
#: Narrower groups, depthwise ones at the extreme, are dense: each group pays for its own
#: layout, which of a few channels costs what the zeros save.
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
    """A product of a grouped convolution from those of its groups.

    Args:
        kind: which of the three products.
        conv: the layer.
        tensors: operands, and what else has the shape of one, by name.
        compute: called with the geometry of a group and its range of each tensor.

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
    """Axis along which the groups of a tensor lie side by side."""
    return 0 if name in {"weight", "wanted"} else 1
