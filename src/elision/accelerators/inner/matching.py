"""Pairs of non-zeros that meet in each output of a product.

The masks of a product are lowered to matrices, windows of an image times the other
operand, and multiplied by NumPy in float32, in which sums of up to 2^24 ones are exact, block
by block: exact for any size, in memory that does not grow with the layer, and beside torch's
modes and dtypes. (Torch multiplies 8-bit integers 4 to 30 times slower than this on a CPU
without instructions for them.)
An input gradient is lowered in its gather form, windows of the gradient with the rotated
filters, because every output must be summed in one place.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from elision.accelerators.inner.work import as_groups, places
from elision.products import Convolution, LayerProduct, Product
from elision.products.axes import Axis, axes_of

__all__ = ["matches"]

#: Ones whose every partial sum float32 holds exactly.
_EXACT = 1 << 24

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
    inside = places(product).work[0, 0].astype(np.int32)
    masks = {
        name: as_groups(geometry, name, mask).astype(np.int8)
        for name, mask in product.operands.items()
    }
    if product.kind is Product.INPUT_GRAD:
        yield from _input_grad(geometry, masks, inside)
        return
    windows = _windows(masks["input"], [_forward_reach(a) for a in axes_of(geometry)])
    for group in range(geometry.groups):
        if product.kind is Product.FORWARD:
            yield from _by_place(windows[:, group], masks["weight"][group], inside)
        else:
            gradient = masks["grad_output"][:, group]
            yield from _by_tap(windows[:, group], gradient, inside)


def _input_grad(
    geometry: Convolution[Any], masks: dict[str, np.ndarray], inside: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows of the gradient times rotated filters, by the pixels' residues.

    Pixels of a residue modulo the stride meet a class of taps of their own, so that no
    zero of the spread-out gradient is multiplied.
    """
    weight = masks["weight"].swapaxes(1, 2)  # (groups, C, K, *taps)
    classes = [_gather_classes(axis) for axis in axes_of(geometry)]
    for chosen in itertools.product(*classes):
        windows = _windows(masks["grad_output"], [c.reach for c in chosen])
        filters = weight[(..., *np.ix_(*(c.taps for c in chosen)))]
        pixels = tuple(c.pixels for c in chosen)
        for group in range(geometry.groups):
            yield from _by_place(windows[:, group], filters[group], inside[pixels])


class _Reach(NamedTuple):
    """Windows along one axis: the first one's place, and steps between windows and taps."""

    first: int
    windows: int
    step: int
    taps: int
    dilation: int

    @property
    def extent(self) -> int:
        """From the first window's first tap to the last one's last."""
        return (self.windows - 1) * self.step + (self.taps - 1) * self.dilation + 1


class _GatherClass(NamedTuple):
    """Pixels of one residue modulo the stride, and the taps they meet, rotated."""

    pixels: slice
    taps: list[int]
    reach: _Reach


def _forward_reach(axis: Axis) -> _Reach:
    """Windows of the image that an output each sums over."""
    return _Reach(-axis.padding, axis.outputs, axis.stride, axis.taps, axis.dilation)


def _gather_classes(axis: Axis) -> list[_GatherClass]:
    """Windows of the gradient that a pixel each sums over: ``o = (h + p − r·d)/t``."""
    found = []
    for residue in range(min(axis.stride, axis.pixels)):
        at = [residue + axis.padding - r * axis.dilation for r in range(axis.taps)]
        taps = [r for r in reversed(range(axis.taps)) if at[r] % axis.stride == 0]
        if not taps:
            continue  # no output meets these pixels
        outputs = [at[r] // axis.stride for r in taps]
        dilation = outputs[1] - outputs[0] if len(taps) > 1 else 1
        pixels = slice(residue, None, axis.stride)
        count = len(range(axis.pixels)[pixels])
        reach = _Reach(outputs[0], count, 1, len(taps), dilation)
        found.append(_GatherClass(pixels, taps, reach))
    return found


def _windows(planes: np.ndarray, reaches: list[_Reach]) -> np.ndarray:
    """Windows of planes, zeros around them, as (·, ·, ·, *windows, *taps), without a copy."""
    image = np.zeros((*planes.shape[:3], *(r.extent for r in reaches)), planes.dtype)
    into, source = [], []
    for reach, size in zip(reaches, planes.shape[3:], strict=True):
        begin, end = max(reach.first, 0), min(reach.first + reach.extent, size)
        end = max(begin, end)
        source.append(slice(begin, end))
        into.append(slice(begin - reach.first, end - reach.first))
    image[(..., *into)] = planes[(..., *source)]
    strides = image.strides[3:]
    return np.lib.stride_tricks.as_strided(
        image,
        (*image.shape[:3], *(r.windows for r in reaches), *(r.taps for r in reaches)),
        (
            *image.strides[:3],
            *(s * r.step for s, r in zip(strides, reaches, strict=True)),
            *(s * r.dilation for s, r in zip(strides, reaches, strict=True)),
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
    counts = np.zeros((len(left), right.shape[1]), np.int32)
    for at in range(0, len(right), _EXACT):
        a, b = left[:, at : at + _EXACT], right[at : at + _EXACT]
        counts += (a.astype(np.float32) @ b.astype(np.float32)).astype(np.int32)
    return counts
