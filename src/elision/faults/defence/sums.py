"""Sums of an operand that checksums read, in one pass over it."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elision.common.machine_code import compiled_once

__all__ = ["Sums", "sums_of", "sums_slowly", "weighted", "weighted_slowly"]


class Sums(NamedTuple):
    """Sums of a tensor ``(N, C, *sizes)``.

    Attributes:
        by_place: over the examples, ``(C, *sizes)``.
        by_pixel: over the channels of each group, ``(N, groups, *sizes)``.
        sizes: of the magnitudes of each channel, ``(C,)`` float64.
        squares: of the squares of each channel, ``(C,)`` float64.
    """

    by_place: Tensor
    by_pixel: Tensor
    sizes: Tensor
    squares: Tensor


def sums_of(x: Tensor, groups: int = 1) -> Sums:
    """All sums in one pass where the tensor is contiguous float32 on the CPU.

    Args:
        x: ``(N, C, *sizes)``.
        groups: of channels.

    Example:
        >>> found = sums_of(torch.tensor([[[1.0, -2.0], [3.0, 4.0]]]))
        >>> found.by_pixel.tolist(), found.sizes.tolist()
        ([[[4.0, 2.0]]], [3.0, 7.0])
    """
    plain = x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous()
    if not plain or not x.numel():
        return sums_slowly(x, groups)
    sizes = x.shape[2:]
    flat = x.detach().view(x.shape[0], x.shape[1], math.prod(sizes)).numpy()
    place, pixel, size, square = _one_pass(flat, groups)
    return Sums(
        torch.from_numpy(place).view(x.shape[1], *sizes),
        torch.from_numpy(pixel).view(x.shape[0], groups, *sizes),
        torch.from_numpy(size),
        torch.from_numpy(square),
    )


def sums_slowly(x: Tensor, groups: int = 1) -> Sums:
    """The same by torch, for any layout and dtype; integers are added exactly."""
    axes = [0, *range(2, x.dim())]
    by_group = x.unflatten(1, (groups, -1))
    if not x.is_floating_point():
        exact: Any = {"dtype": torch.int64}
        size, square = x.abs().sum(axes, **exact), x.square().sum(axes, **exact)
        return Sums(x.sum(0, **exact), by_group.sum(2, **exact), size, square)
    own = torch.promote_types(x.dtype, torch.float32)
    size = torch.linalg.vector_norm(x, 1, axes, dtype=own).double()
    square = torch.linalg.vector_norm(x, 2, axes, dtype=own).double().square()
    return Sums(x.sum(0, dtype=own), by_group.sum(2, dtype=own), size, square)


def weighted(
    w: Tensor, sums: Tensor, groups: int = 1, *, transposed: bool = False
) -> tuple[Tensor, Tensor]:
    """A weight times sums of its input, or of its output, and the norms of its slices.

    ``Σ_ct W[k, c, t]·S[c, t]`` for each output channel k; transposed,
    ``Σ_kt W[k, c, t]·S[k, t]`` for each input channel c. One pass where the weight is
    contiguous float32 on the CPU.

    Args:
        w: ``(K, C/groups, taps)``.
        sums: ``(C, taps)``, transposed ``(K, taps)``; float64 or int64.
        groups: of channels.
        transposed: see above.

    Returns:
        Both ``(K,)``, transposed ``(C,)``: the products, float64 or int64, and the norms,
        float64.

    Example:
        >>> w = torch.tensor([[[3.0], [4.0]]])
        >>> products, norms = weighted(w, torch.tensor([[1.0], [2.0]]).double())
        >>> products.tolist(), norms.tolist()
        ([11.0], [5.0])
    """
    plain = w.dtype == torch.float32 and w.device.type == "cpu" and w.is_contiguous()
    if not plain or not w.numel():
        return weighted_slowly(w, sums, groups, transposed=transposed)
    one_pass = _by_column if transposed else _by_row
    done = one_pass(w.detach().numpy(), sums.float().contiguous().numpy(), groups)
    return torch.from_numpy(done[0]), torch.from_numpy(done[1]).sqrt()


def weighted_slowly(
    w: Tensor, sums: Tensor, groups: int = 1, *, transposed: bool = False
) -> tuple[Tensor, Tensor]:
    """The same by torch, for any layout and dtype; integers are added exactly."""
    wide = w.double() if w.is_floating_point() else w.long()
    by_group = wide.unflatten(0, (groups, -1))  # (groups, K/groups, C/groups, taps)
    own = sums.to(wide.dtype).unflatten(0, (groups, -1))
    axes = [1, 3] if transposed else [2, 3]
    own = own[:, :, None] if transposed else own[:, None]
    products = (by_group * own).sum(axes).flatten()
    return products, by_group.double().square().sum(axes).flatten().sqrt()


# Sums of magnitudes may be added in any order; NaN and infinity must stay what they are.
@compiled_once(nogil=True, fastmath={"reassoc", "nsz", "contract"})
def _one_pass(x: Any, groups: int) -> Any:  # pragma: no cover (compiled)
    examples, channels, pixels = x.shape
    place = np.zeros((channels, pixels), np.float32)
    pixel = np.zeros((examples, groups, pixels), np.float32)
    size, square = np.zeros(channels, np.float64), np.zeros(channels, np.float64)
    each = channels // groups
    for n in range(examples):
        for c in range(channels):
            row, here, there = x[n, c], place[c], pixel[n, c // each]
            total, squares = np.float32(0), np.float32(0)
            for s in range(pixels):
                value = row[s]
                here[s] += value
                there[s] += value
                total += abs(value)
                squares += value * value
            size[c] += total
            square[c] += squares
    return place, pixel, size, square


@compiled_once(nogil=True, fastmath={"reassoc", "nsz", "contract"})
def _by_row(w: Any, sums: Any, groups: int) -> Any:  # pragma: no cover (compiled)
    rows, channels, taps = w.shape
    product, square = np.zeros(rows, np.float64), np.zeros(rows, np.float64)
    for k in range(rows):
        first = k // (rows // groups) * channels
        row = w[k].reshape(channels * taps)
        own = sums[first : first + channels].reshape(channels * taps)
        total, squares = np.float32(0), np.float32(0)
        for i in range(channels * taps):
            total += row[i] * own[i]
            squares += row[i] * row[i]
        product[k], square[k] = total, squares
    return product, square


@compiled_once(nogil=True, fastmath={"reassoc", "nsz", "contract"})
def _by_column(w: Any, sums: Any, groups: int) -> Any:  # pragma: no cover (compiled)
    rows, channels, taps = w.shape
    product = np.zeros(channels * groups, np.float64)
    square = np.zeros(channels * groups, np.float64)
    each, width = rows // groups, channels * taps
    for g in range(groups):
        # Whole rows at a time: a loop over a few taps is too short for vectors.
        own, squares = np.zeros(width, np.float32), np.zeros(width, np.float32)
        tiled = np.zeros(width, np.float32)
        for k in range(g * each, (g + 1) * each):
            row = w[k].reshape(width)
            for c in range(channels):
                for t in range(taps):
                    tiled[c * taps + t] = sums[k, t]
            for i in range(width):
                own[i] += row[i] * tiled[i]
                squares[i] += row[i] * row[i]
        for c in range(channels):
            for t in range(taps):
                product[g * channels + c] += own[c * taps + t]
                square[g * channels + c] += squares[c * taps + t]
    return product, square
