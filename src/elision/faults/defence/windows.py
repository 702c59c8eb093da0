"""Sums over the pixels that each tap of a kernel meets.

Each function has a kernel for contiguous float32 images on the CPU, and a slow form beside
it, by torch, for any number of axes, layout and dtype; integers are added exactly.
"""

from collections.abc import Iterator
from itertools import product as pairs
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from elision.common.machine_code import compiled_once
from elision.products import ConvolutionParameters

__all__ = [
    "by_channel",
    "correlated",
    "correlated_slowly",
    "met",
    "met_inside",
    "met_inside_slowly",
    "met_slowly",
]

Sizes = tuple[int, ...] | torch.Size


def by_channel(x: Tensor) -> Tensor:
    """Sums of each channel of ``(N, C, *sizes)``, ``(C,)`` float64 or int64.

    In the tensor's own arithmetic, at least float32, by halves.

    Example:
        >>> by_channel(torch.ones(2, 3, 4, 5)).tolist()
        [40.0, 40.0, 40.0]
    """
    axes = [0, *range(2, x.dim())]
    if not x.is_floating_point():
        return x.sum(axes, dtype=torch.int64)
    own = torch.promote_types(x.dtype, torch.float32)
    return x.sum(axes, dtype=own).double()


def met(
    place: Tensor, kernel: Sizes, outputs: Sizes, how: ConvolutionParameters
) -> Tensor:
    """Sums of the pixels that each tap meets, one an output.

    Args:
        place: ``(C, *sizes)``.
        kernel: sizes of the kernel.
        outputs: sizes of the result.
        how: strides, padding, dilation.

    Returns:
        ``(C, taps)``, float64 or int64.

    Example:
        >>> how = ConvolutionParameters((1, 1), (1, 1), (1, 1))
        >>> met(torch.ones(1, 2, 2), (3, 3), (2, 2), how).view(3, 3).tolist()
        [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    if len(kernel) != 2 or not _is_plain(place):
        return met_slowly(place, kernel, outputs, how)
    given = (tuple(kernel), tuple(outputs), how.stride, how.padding, how.dilation)
    return torch.from_numpy(_met(place.numpy(), *given))


def met_slowly(
    place: Tensor, kernel: Sizes, outputs: Sizes, how: ConvolutionParameters
) -> Tensor:
    """The same by torch."""
    spread = F.pad(place, _padding(how))
    return torch.stack(
        [_total(_window(spread, t, outputs, how)) for t in _taps(kernel)], 1
    )


def met_inside(
    place: Tensor, kernel: Sizes, inputs: Sizes, how: ConvolutionParameters
) -> Tensor:
    """Sums of the outputs whose pixel at each tap is inside of the image.

    Args:
        place: of the result's gradient, ``(K, *sizes)``.
        kernel: sizes of the kernel.
        inputs: sizes of the image.
        how: strides, padding, dilation.

    Returns:
        ``(K, taps)``, float64 or int64.

    Example:
        >>> how = ConvolutionParameters((1, 1), (1, 1), (1, 1))
        >>> met_inside(torch.ones(1, 2, 2), (3, 3), (2, 2), how).view(3, 3).tolist()
        [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    if len(kernel) != 2 or not _is_plain(place):
        return met_inside_slowly(place, kernel, inputs, how)
    given = (tuple(kernel), tuple(inputs), how.stride, how.padding, how.dilation)
    return torch.from_numpy(_met_inside(place.numpy(), *given))


def met_inside_slowly(
    place: Tensor, kernel: Sizes, inputs: Sizes, how: ConvolutionParameters
) -> Tensor:
    """The same by torch."""
    return torch.stack(
        [
            _total(place[(slice(None), *_inside(t, place.shape[1:], inputs, how))])
            for t in _taps(kernel)
        ],
        1,
    )


def correlated(
    g: Tensor, x: Tensor, kernel: Sizes, how: ConvolutionParameters
) -> Tensor:
    """Sums of products of two images over the outputs, tap by tap.

    Args:
        g: ``(N, groups, *outputs)``.
        x: ``(N, groups, *sizes)``.
        kernel: sizes of the kernel.
        how: strides, padding, dilation.

    Returns:
        ``(groups, taps)``, float64 or int64.

    Example:
        >>> how = ConvolutionParameters((1, 1), (0, 0), (1, 1))
        >>> correlated(torch.ones(2, 1, 2, 2), torch.ones(2, 1, 3, 3), (2, 2), how)
        tensor([[8., 8., 8., 8.]], dtype=torch.float64)
    """
    if len(kernel) != 2 or not (_is_plain(g) and _is_plain(x)):
        return correlated_slowly(g, x, kernel, how)
    given = (tuple(kernel), how.stride, how.padding, how.dilation)
    return torch.from_numpy(_correlated(g.numpy(), x.numpy(), *given))


def correlated_slowly(
    g: Tensor, x: Tensor, kernel: Sizes, how: ConvolutionParameters
) -> Tensor:
    """The same by torch."""
    spread = F.pad(x, _padding(how))
    return torch.stack(
        [by_channel(g * _window(spread, t, g.shape[2:], how)) for t in _taps(kernel)],
        1,
    )


def _is_plain(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous()


def _total(x: Tensor) -> Tensor:
    """Sum over the pixels of each channel; float64 or int64."""
    wide = torch.float64 if x.is_floating_point() else torch.int64
    return x.flatten(1).sum(1, dtype=wide) if x.dim() > 1 else x.to(wide)


def _taps(kernel: Sizes) -> Iterator[tuple[int, ...]]:
    return pairs(*(range(n) for n in kernel))


def _padding(how: ConvolutionParameters) -> list[int]:
    return [p for n in reversed(how.padding) for p in (n, n)]


def _window(
    x: Tensor, tap: tuple[int, ...], sizes: Sizes, how: ConvolutionParameters
) -> Tensor:
    """The padded pixels that a tap meets, one an output; axes of pixels are the last."""
    cut = tuple(
        slice(d * r, d * r + t * (n - 1) + 1, t)
        for r, n, t, d in zip(tap, sizes, how.stride, how.dilation, strict=True)
    )
    return x[(..., *cut)]


def _inside(
    tap: tuple[int, ...], outputs: Sizes, inputs: Sizes, how: ConvolutionParameters
) -> tuple[slice, ...]:
    """The outputs whose pixel at a tap is inside the image."""
    found = []
    for axis, r in enumerate(tap):
        low, high = _ends.py_func(
            r,
            outputs[axis],
            inputs[axis],
            how.stride[axis],
            how.padding[axis],
            how.dilation[axis],
        )
        found.append(slice(low, high))
    return tuple(found)


_FAST: Any = {"nogil": True, "fastmath": {"reassoc", "nsz", "contract"}}


@compiled_once(nogil=True)
def _ends(
    tap: int, outputs: int, inputs: int, stride: int, pad: int, dilation: int
) -> tuple[int, int]:
    """First and last + 1 of the outputs whose pixel at a tap is inside the image."""
    low = max(0, -((dilation * tap - pad) // stride))
    high = min((inputs - 1 + pad - dilation * tap) // stride + 1, outputs)
    return low, max(low, high)


@compiled_once(**_FAST)
def _met(
    place: Any, kernel: Any, outputs: Any, stride: Any, pad: Any, dilation: Any
) -> Any:  # pragma: no cover (compiled)
    channels, height, width = place.shape
    found = np.zeros((channels, kernel[0] * kernel[1]), np.float64)
    for r in range(kernel[0]):
        top, bottom = _ends(r, outputs[0], height, stride[0], pad[0], dilation[0])
        for s in range(kernel[1]):
            left, right = _ends(s, outputs[1], width, stride[1], pad[1], dilation[1])
            for c in range(channels):
                total = np.float64(0)
                for p in range(top, bottom):
                    row = place[c, p * stride[0] + r * dilation[0] - pad[0]]
                    first = s * dilation[1] - pad[1]
                    part = np.float32(0)
                    if stride[1] == 1:  # neighbours, which make vectors
                        for q in range(left + first, right + first):
                            part += row[q]
                    else:
                        for q in range(left, right):
                            part += row[q * stride[1] + first]
                    total += part
                found[c, r * kernel[1] + s] = total
    return found


@compiled_once(**_FAST)
def _met_inside(
    place: Any, kernel: Any, inputs: Any, stride: Any, pad: Any, dilation: Any
) -> Any:  # pragma: no cover (compiled)
    channels, height, width = place.shape
    found = np.zeros((channels, kernel[0] * kernel[1]), np.float64)
    for r in range(kernel[0]):
        top, bottom = _ends(r, height, inputs[0], stride[0], pad[0], dilation[0])
        for s in range(kernel[1]):
            left, right = _ends(s, width, inputs[1], stride[1], pad[1], dilation[1])
            for c in range(channels):
                total = np.float64(0)
                for p in range(top, bottom):
                    row = place[c, p]
                    part = np.float32(0)
                    for q in range(left, right):
                        part += row[q]
                    total += part
                found[c, r * kernel[1] + s] = total
    return found


@compiled_once(**_FAST)
def _correlated(
    g: Any, x: Any, kernel: Any, stride: Any, pad: Any, dilation: Any
) -> Any:  # pragma: no cover (compiled)
    examples, groups, height, width = g.shape
    found = np.zeros((groups, kernel[0] * kernel[1]), np.float64)
    for r in range(kernel[0]):
        top, bottom = _ends(r, height, x.shape[2], stride[0], pad[0], dilation[0])
        for s in range(kernel[1]):
            left, right = _ends(s, width, x.shape[3], stride[1], pad[1], dilation[1])
            first = s * dilation[1] - pad[1]
            for n in range(examples):
                for k in range(groups):
                    total = np.float64(0)
                    for p in range(top, bottom):
                        one = g[n, k, p]
                        other = x[n, k, p * stride[0] + r * dilation[0] - pad[0]]
                        for q in range(left, right):
                            total += one[q] * other[q * stride[1] + first]
                    found[k, r * kernel[1] + s] += total
    return found
