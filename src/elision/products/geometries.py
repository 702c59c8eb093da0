"""Geometries from what describes a layer: a saved form, or the shapes of its operands."""

from typing import Any

from elision.products.conv1d import Conv1dGeometry
from elision.products.convolution import Conv2dGeometry, Conv3dGeometry, Convolution
from elision.products.geometry import Geometry
from elision.products.lookup import LookupGeometry
from elision.products.matmul import MatmulGeometry
from elision.products.parameters import ConvolutionParameters
from elision.products.transposed import (
    ConvTranspose1dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
    TransposedConvolution,
    TransposedMatmulGeometry,
)

__all__ = ["geometry_from_json", "geometry_of"]

#: Convolutions and transposed ones by the axes of their images, from one on.
_CONVOLUTIONS: tuple[type[Convolution[Any]], ...] = (
    Conv1dGeometry,
    Conv2dGeometry,
    Conv3dGeometry,
)
_TRANSPOSED: tuple[type[TransposedConvolution], ...] = (
    ConvTranspose1dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
)

_GEOMETRIES: dict[str, type[Geometry]] = {
    member.layer: member
    for member in (
        MatmulGeometry,
        TransposedMatmulGeometry,
        LookupGeometry,
        *_CONVOLUTIONS,
        *_TRANSPOSED,
    )
}


def geometry_from_json(entry: dict[str, Any]) -> Geometry:
    """The geometry that :meth:`Geometry.to_json` wrote.

    Raises:
        KeyError: no kind, or an unknown one.
        TypeError: a size is missing or unknown.
        ValueError: a size is out of range.

    Example:
        >>> geometry_from_json(MatmulGeometry(8, 4, 5).to_json())
        MatmulGeometry(rows=8, inner=4, columns=5, batch=1)
    """
    sizes = dict(entry)
    return _GEOMETRIES[sizes.pop("kind")].from_sizes(sizes)


def geometry_of(
    input: tuple[int, ...],
    weight: tuple[int, ...],
    convolution: ConvolutionParameters | tuple[Any, ...] | None,
) -> Geometry:
    """Geometry from the shapes of a linear layer's or a convolution's operands.

    Args:
        input: shape of X; with a leading axis, of a batch of matrix products.
        weight: shape of W, likewise.
        convolution: parameters of the convolution, of one to three axes, or a tuple of
            the first of them; None: a matrix product.

    Example:
        >>> up = ConvolutionParameters((2,), (0,), (1,), transposed=True)
        >>> geometry_of((1, 8, 4), (8, 3, 2), up).shape_of("grad_output")
        (1, 3, 8)
    """
    if convolution is None:
        *batch, rows, inner = input
        return MatmulGeometry(rows, inner, weight[-2], *batch)
    how = ConvolutionParameters(*convolution)  # pyright: ignore[reportArgumentType]
    stride, padding, dilation, groups, transposed, _ = how
    if not stride:
        return TransposedMatmulGeometry.of(input, weight)
    place = len(stride) - 1
    if transposed:
        return _TRANSPOSED[place].of(
            input, weight, stride, padding, how.extra, dilation, groups
        )
    return _CONVOLUTIONS[place].of(
        input, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
