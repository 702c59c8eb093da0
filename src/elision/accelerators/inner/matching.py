"""Pairs of non-zeros that meet in each output of a product.

The masks of a product are lowered to matrices, windows of an image times the other
operand, and multiplied as 8-bit integers with 32-bit sums, block by block: exact for any
size, in memory that does not grow with the layer, and beside torch's modes and dtypes.
An input gradient is lowered in its gather form, a convolution of the spread-out gradient
with the rotated filters, because every output must be summed in one place.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from elision.accelerators.inner.work import Axis, as_groups, axes_of, places
from elision.products import Convolution, LayerProduct, Product

__all__ = ["matches"]

#: Values of an unfolded block, and outputs of a block.
_BLOCK = 1 << 23


def matches(product: LayerProduct) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of the counts of a product's outputs.

    Args:
        product: with masks for operands.

    Yields:
        Pairs of non-zeros, int32 of shape (rows, columns), one entry an output; and
        the places that each row's outputs sum over, int32 of shape (rows, 1).
    """
    product = product.as_convolution()
    geometry: Any = product.geometry
    axes = axes_of(geometry)
    inside = places(product).work[0, 0].astype(np.int32)
    masks = {
        name: as_groups(geometry, name, mask).astype(np.int8)
        for name, mask in product.operands.items()
    }
    if product.kind is Product.INPUT_GRAD:
        image = _placed(masks["grad_output"], [_spread_out(axis) for axis in axes])
        windows = _windows(image, geometry, geometry.sizes, (1,) * len(axes))
        weight = np.flip(masks["weight"], tuple(range(3, 3 + len(axes))))
        others = weight.swapaxes(1, 2)
    else:
        padded = [(1, axis.padding, axis.pixels + 2 * axis.padding) for axis in axes]
        image = _placed(masks["input"], padded)
        windows = _windows(image, geometry, geometry.out_sizes, geometry.stride)
        others = masks.get("weight")
    for group in range(geometry.groups):
        if product.kind is Product.WEIGHT_GRAD:
            yield from _by_tap(
                windows[:, group], masks["grad_output"][:, group], inside
            )
        else:
            assert others is not None
            yield from _by_place(windows[:, group], others[group], inside)


def _spread_out(axis: Axis) -> tuple[int, int, int]:
    """Step, offset and extent of the gradient's places, for windows of rotated taps."""
    reach = axis.dilation * (axis.taps - 1)
    return axis.stride, reach - axis.padding, axis.pixels + reach


def _placed(planes: np.ndarray, places: list[tuple[int, int, int]]) -> np.ndarray:
    """Planes, (·, ·, ·, ...), at (step, offset) of each axis in an image of zeros."""
    extents = [extent for _, _, extent in places]
    if all(
        place == (1, 0, size)
        for place, size in zip(places, planes.shape[3:], strict=True)
    ):
        return planes
    at, inside = [], []
    for (step, offset, extent), size in zip(places, planes.shape[3:], strict=True):
        coordinates = step * np.arange(size) + offset
        kept = np.flatnonzero((coordinates >= 0) & (coordinates < extent))
        at.append(coordinates[kept])
        inside.append(kept)
    image = np.zeros((*planes.shape[:3], *extents), planes.dtype)
    image[(..., *np.ix_(*at))] = planes[(..., *np.ix_(*inside))]
    return image


def _windows(
    image: np.ndarray,
    geometry: Convolution[Any],
    places: tuple[int, ...],
    steps: tuple[int, ...],
) -> np.ndarray:
    """Windows of an image, (N, groups, channels, *places, *taps), without a copy."""
    strides = image.strides[3:]
    return np.lib.stride_tricks.as_strided(
        image,
        (*image.shape[:3], *places, *geometry.kernel),
        (
            *image.strides[:3],
            *(s * step for s, step in zip(strides, steps, strict=True)),
            *(s * d for s, d in zip(strides, geometry.dilation, strict=True)),
        ),
    )


def _by_place(
    windows: np.ndarray, filters: np.ndarray, inside: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Outputs that are places of an image: windows times filters.

    Args:
        windows: (N, channels, *places, *taps).
        filters: (columns, channels, *taps).
        inside: by place.
    """
    rank = inside.ndim
    order = (0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    unfolded = windows.transpose(order)  # (N, *places, channels, *taps)
    right = filters.reshape(len(filters), -1).T
    row = max(right.shape)
    for image in _slices(len(unfolded), row * inside.size):
        for line in _slices(len(inside), row * (inside.size // len(inside))):
            block = unfolded[image, line]
            left = block.reshape(-1, len(right))
            rows = np.tile(inside[line].reshape(-1), len(block))
            yield _product(left, right), rows[:, None]


def _by_tap(
    windows: np.ndarray, gradient: np.ndarray, inside: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Outputs that are taps of filters: windows, transposed, times the gradient.

    Args:
        windows: (N, channels, *places, *taps).
        gradient: (N, columns, *places).
        inside: by tap.
    """
    rank = inside.ndim
    order = (1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank))
    unfolded = windows.transpose(order)  # (channels, *taps, N, *places)
    columns = gradient.shape[1]
    right = gradient.swapaxes(0, 1).reshape(columns, -1).T
    row = max(right.shape)
    for channels in _slices(len(unfolded), row * inside.size):
        block = unfolded[channels]
        left = block.reshape(-1, len(right))
        yield _product(left, right), np.tile(inside.reshape(-1), len(block))[:, None]


def _slices(count: int, size: int) -> Iterator[slice]:
    """Parts of ``count`` things of ``size`` values, at most a block's values in each."""
    step = max(_BLOCK // size, 1)
    return (slice(i, i + step) for i in range(0, count, step))


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The matrix product of masks, (rows, summed) times (summed, columns), int32."""
    # Copies in C order, as the kernel takes the strides of axes of length 1 at their word.
    a, b = (torch.from_numpy(np.array(m, order="C")) for m in (left, right))
    return torch.ops.aten._int_mm(a, b).numpy()
