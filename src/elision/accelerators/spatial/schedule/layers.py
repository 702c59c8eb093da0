"""Layers as sizes of a listing, so that one schedule is costed on a whole network.

A listing of a convolution calls its sizes ``N, K, C, P, Q, R, S``, ``H`` and ``W`` of the
image, ``T`` for the stride and ``PAD`` for the padding, as ``conv.t2s`` does; one of a
matrix product ``M, N, K``, rows, columns and inner, to which a convolution is lowered by
unfolding its image. Groups are passes of their own.
"""

from collections.abc import Iterable
from typing import NamedTuple

from elision.accelerators.base import planar
from elision.products import Geometry, MatmulGeometry, Product

__all__ = ["LayerSizes", "layer_sizes"]

_CONVOLUTION = ("N", "K", "C", "P", "Q", "R", "S")
_MATRIX = ("M", "N", "K")


class LayerSizes(NamedTuple):
    """A layer's forward product as sizes of a listing.

    Attributes:
        sizes: by name.
        passes: times that the array runs, one for each group.

    Example:
        >>> LayerSizes({"M": 8, "N": 4, "K": 2}, 1).passes
        1
    """

    sizes: dict[str, int]
    passes: int


def layer_sizes(geometry: Geometry, names: Iterable[str]) -> LayerSizes:
    """The forward product of a layer in the names of a listing.

    Args:
        geometry: of the layer.
        names: sizes and constants of the listing.

    Raises:
        ValueError: the names are neither those of a convolution nor those of a matrix
            product, or the layer has what the listing has no name for.

    Example:
        >>> from elision.products import Conv2dGeometry
        >>> layer = Conv2dGeometry(2, 8, 5, 5, 16, kernel=3)
        >>> layer_sizes(layer, ("M", "N", "K")).sizes
        {'M': 18, 'N': 16, 'K': 72}
    """
    known = set(names)
    if set(_CONVOLUTION) <= known:
        return _as_convolution(geometry, known)
    if set(_MATRIX) == known & {*_CONVOLUTION, *_MATRIX}:
        return _as_matrix(geometry)
    raise ValueError(
        f"the listing's sizes {', '.join(sorted(known))} are not those of a layer: call "
        f"them {', '.join(_CONVOLUTION)} (H, W, T, PAD) of a convolution, or "
        f"{', '.join(_MATRIX)} of a matrix product"
    )


def _as_convolution(geometry: Geometry, known: set[str]) -> LayerSizes:
    if isinstance(geometry, MatmulGeometry):
        raise ValueError("is a matrix product, the listing a convolution")
    kind, conv = planar(Product.FORWARD, geometry)
    if kind is not Product.FORWARD:
        raise ValueError("is a transposed convolution, the listing a convolution")
    wanted = {
        "N": conv.batch,
        "K": conv.out_channels // conv.groups,
        "C": conv.in_channels // conv.groups,
        "H": conv.height,
        "W": conv.width,
        "P": conv.out_height,
        "Q": conv.out_width,
        "R": conv.kernel[0],
        "S": conv.kernel[1],
    }
    for name, values, plain in (
        ("T", conv.stride, 1),
        ("PAD", conv.padding, 0),
        ("D", conv.dilation, 1),
    ):
        if name in known and values[0] == values[1]:
            wanted[name] = values[0]
        elif set(values) != {plain}:
            what = {"T": "stride", "PAD": "padding", "D": "dilation"}[name]
            raise ValueError(
                f"has {what} {values}, for which the listing has no one {name}"
            )
    return LayerSizes({n: v for n, v in wanted.items() if n in known}, conv.groups)


def _as_matrix(geometry: Geometry) -> LayerSizes:
    if isinstance(geometry, MatmulGeometry):
        sizes = {"M": geometry.rows, "N": geometry.columns, "K": geometry.inner}
        return LayerSizes(sizes, geometry.batch)
    kind, conv = planar(Product.FORWARD, geometry)
    if kind is not Product.FORWARD:
        raise ValueError(
            "is a transposed convolution, whose forward product is a scatter"
        )
    sizes = {
        "M": conv.batch * conv.out_height * conv.out_width,
        "N": conv.out_channels // conv.groups,
        "K": conv.in_channels // conv.groups * conv.kernel[0] * conv.kernel[1],
    }
    return LayerSizes(sizes, conv.groups)
