"""Geometries from what describes a layer: a saved form, or the shapes of its operands."""

from typing import Any

from elision.products.convolution import Conv2dGeometry, Conv3dGeometry
from elision.products.geometry import Geometry
from elision.products.matmul import MatmulGeometry
from elision.products.transposed import ConvTranspose2dGeometry

__all__ = ["geometry_from_json", "geometry_of"]

_GEOMETRIES: dict[str, type[Geometry]] = {
    member.layer: member
    for member in (
        Conv2dGeometry,
        MatmulGeometry,
        ConvTranspose2dGeometry,
        Conv3dGeometry,
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
    input: tuple[int, ...], weight: tuple[int, ...], convolution: Any
) -> Geometry:
    """Geometry from the shapes of a linear layer's or 2-D convolution's operands.

    Args:
        input: shape of X.
        weight: shape of W.
        convolution: (stride, padding, dilation, groups); None: a linear layer.
    """
    if convolution is None:
        return MatmulGeometry(input[0], input[1], weight[0])
    stride, padding, dilation, groups = convolution
    return Conv2dGeometry.of(
        input, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
