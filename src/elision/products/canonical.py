"""The canonical form of a layer: one geometry for all that are the same product.

A matrix product is written in many ways: as a linear layer, as a 1x1 convolution over
pixels or over images of one pixel, as a convolution whose kernel covers the image, as
patches that do not overlap. All are convolutions whose windows *tile* the image, without
overlap, gap or padding, so that every pixel meets one tap of each filter. Along an axis
of ``H`` pixels, ``R`` taps and ``P`` outputs that is ``H = P·R``; then

    X[N, C, P·R]  is  X[N·P, C·R]      W[K, C, R]  is  W[K, C·R]      G[N, K, P]  is  G[N·P, K]

with the groups of a convolution as the batch of the matrix product. A cost is counted in
the canonical form, so that it is a property of the product and not of its notation.
"""

from dataclasses import replace
from typing import Any

from elision.products.axes import axes_of
from elision.products.conv1d import Conv1dGeometry
from elision.products.convolution import Convolution
from elision.products.geometry import Geometry
from elision.products.lookup import LookupGeometry
from elision.products.matmul import MatmulGeometry
from elision.products.transposed import (
    ConvTranspose1dGeometry,
    ConvTranspose2dGeometry,
    TransposedConvolution,
    TransposedMatmulGeometry,
)

__all__ = ["canonical_geometry", "canonical_operand"]


def canonical_geometry(geometry: Geometry) -> Geometry:
    """The geometry in which all layers with the same products are equal.

    A matrix product in any notation is a :class:`MatmulGeometry`. A transposed
    convolution that is one has the operands of a linear layer. What is convolved over a
    line has images of one row. In a convolution that is no matrix product, a dilation of a
    single tap and a stride of a single output become 1.

    Example:
        >>> from elision.products import Conv2dGeometry
        >>> canonical_geometry(Conv2dGeometry(2, 8, 4, 4, 16, kernel=1))
        MatmulGeometry(rows=32, inner=8, columns=16, batch=1)
        >>> canonical_geometry(Conv2dGeometry(2, 8, 4, 4, 16, kernel=2, stride=2))
        MatmulGeometry(rows=8, inner=32, columns=16, batch=1)
        >>> canonical_geometry(Conv2dGeometry(2, 8, 4, 4, 16, kernel=2)).layer
        'conv2d'
    """
    geometry = _on_two_axes(geometry)
    if isinstance(geometry, LookupGeometry):
        return geometry.products
    if isinstance(geometry, TransposedMatmulGeometry):
        return geometry.matmul
    if isinstance(geometry, Convolution):
        return _matmul(geometry) if _tiles(geometry) else _plain(geometry)
    if isinstance(geometry, TransposedConvolution):
        if not _tiles(geometry.convolution):
            return type(geometry)(_plain(geometry.convolution))
        own = _matmul(geometry.convolution)
        return replace(own, inner=own.columns, columns=own.inner)
    return geometry


def canonical_operand(geometry: Geometry, operand: str, value: Any) -> Any:
    """An operand, a numpy array, in the layout of :func:`canonical_geometry`.

    Args:
        geometry: of the layer as it was written.
        operand: ``"input"``, ``"weight"`` or ``"grad_output"``.
        value: in the layer's own layout.
    """
    flat = _on_two_axes(geometry)
    if flat is not geometry:
        geometry, value = flat, geometry.to_convolution(operand, value)
    if isinstance(geometry, LookupGeometry):
        return value.reshape(geometry.products.shape_of(operand))
    if isinstance(geometry, TransposedMatmulGeometry):
        return value.swapaxes(0, 1) if operand == "weight" else value
    if isinstance(geometry, Convolution):
        return _flat(geometry, operand, value) if _tiles(geometry) else value
    if isinstance(geometry, TransposedConvolution) and _tiles(geometry.convolution):
        own = geometry.convolution_operand(operand)
        flat = _flat(geometry.convolution, own, value)
        return flat.swapaxes(-1, -2) if operand == "weight" else flat
    return value


def _on_two_axes(geometry: Geometry) -> Geometry:
    """A layer over a line as one over images of one row; any other as it is."""
    if isinstance(geometry, Conv1dGeometry):
        return geometry.on_two_axes
    if isinstance(geometry, ConvTranspose1dGeometry):
        return ConvTranspose2dGeometry(geometry.convolution.on_two_axes)
    return geometry


def _tiles(geometry: Convolution[Any]) -> bool:
    """Whether the windows tile the image: every pixel is in exactly one."""
    return all(
        axis.pixels == axis.outputs * axis.taps
        and axis.padding == 0
        and (axis.dilation == 1 or axis.taps == 1)
        and (axis.stride == axis.taps or axis.outputs == 1)
        for axis in axes_of(geometry)
    )


def _matmul(geometry: Convolution[Any]) -> MatmulGeometry:
    rows, inner = geometry.batch, geometry.in_channels // geometry.groups
    for outputs, taps in zip(geometry.out_sizes, geometry.kernel, strict=True):
        rows, inner = rows * outputs, inner * taps
    columns = geometry.out_channels // geometry.groups
    return MatmulGeometry(rows, inner, columns, geometry.groups)


def _plain(geometry: Convolution[Any]) -> Any:
    """The convolution without the parameters that do not matter to it."""
    strides, dilations = [], []
    for axis in axes_of(geometry):
        reach = axis.dilation * (axis.taps - 1) + 1
        one_output = axis.pixels + 2 * axis.padding == reach
        strides.append(1 if one_output else axis.stride)
        dilations.append(1 if axis.taps == 1 else axis.dilation)
    return replace(geometry, stride=tuple(strides), dilation=tuple(dilations))  # pyright: ignore[reportArgumentType]


def _flat(geometry: Convolution[Any], operand: str, value: Any) -> Any:
    """An operand as matrices: (groups, N·P, C·R), (groups, K, C·R), (groups, N·P, K)."""
    matmul, groups = _matmul(geometry), geometry.groups
    if operand == "weight":
        return value.reshape(matmul.shape_of("weight"))
    # Axes: image, group, channel, then (output, tap) or output of each axis.
    taps = geometry.kernel if operand == "input" else (1,) * len(geometry.kernel)
    split = (
        side for pair in zip(geometry.out_sizes, taps, strict=True) for side in pair
    )
    value = value.reshape(geometry.batch, groups, -1, *split)
    rank = len(geometry.kernel)
    outputs, inside = range(3, 3 + 2 * rank, 2), range(4, 4 + 2 * rank, 2)
    order = (1, 0, *outputs, 2, *inside)
    return value.transpose(order).reshape(matmul.shape_of(operand))
