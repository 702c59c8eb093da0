"""A training product as outer products of planes, the form that SCNN and ANT execute.

An outer-product machine multiplies every non-zero of an *image* plane with every
non-zero of a *kernel* plane and finds out afterwards to which output a product belongs.
Per axis, let an image value lie at coordinate ``y`` and a kernel value at ``r``; with
stride ``t`` and ``U`` outputs the product is valid iff ``t`` divides ``y - r`` and
``0 <= (y - r)/t < U``. All three products of a convolution have this form. For a layer
of stride ``t``, padding ``p``, dilation ``d`` and ``R`` taps (per axis):

===========  =======================  ==================  ======  =======
product      image, at                kernel, at          stride  outputs
===========  =======================  ==================  ======  =======
FORWARD      X, ``h + p``             W, ``d·r``          ``t``   ``Ho``
INPUT_GRAD   G, ``t·o + d(R-1) - p``  W rotated, ``d·r``  1       ``H``
WEIGHT_GRAD  X, ``h + p``             G, ``t·o``          ``d``   ``R``
===========  =======================  ==================  ======  =======

which follows from ``h = t·o - p + d·r`` (see :mod:`elision.products`). Image and kernel
share one index, so the planes come in *blocks*: within a block, every image plane meets
every kernel plane.

A **matrix product** ``C[m, n] = Σₖ A[m, k]·B[k, n]`` has two such forms:

* *by index*: a block for each ``k``, whose planes are the vectors ``A[:, k]`` and
  ``B[k, :]``. Every product is valid, as in the 1x1 convolution that it is.
* *tiled* (:func:`tiled_matmul`): the image is ``A`` transposed, ``k`` down and ``m``
  across, the kernel is ``B``, ``k`` down and ``n`` across; ``m`` and ``n`` are cut into
  tiles. All values of two planes meet, whatever their ``k``, and a product is valid iff
  ``k`` is the same, so that about one in ``k``'s many is. With ``w`` kernel columns,

  ====  ==================  =======  ======  =========
  axis  image, at           kernel   stride  outputs
  ====  ==================  =======  ======  =========
  k     ``k``               ``k``    1       1
  m, n  ``w·m + (w - 1)``   ``n``    1       ``m``'s · w
  ====  ==================  =======  ======  =========

  across, every pair has an output of its own, ``w·m + (w - 1 - n)``; down, the range of
  a group of image values collapses to the values of ``k`` that it holds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import ClassVar

import numpy as np

from elision.accelerators.base import ceil_div, planar
from elision.accelerators.numbers import numbers_of
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

__all__ = [
    "Axis",
    "OuterProduct",
    "Planes",
    "VectorPairs",
    "axis_of",
    "folded_matmul",
    "imaged_matmul",
    "is_folded",
    "laid_out",
    "plane_bits",
    "planes_of",
    "tiled_matmul",
]


@dataclass(frozen=True)
class Axis:
    """Coordinates along one axis of an outer product.

    Attributes:
        image_step, image_offset: image index ``i`` lies at ``image_step·i + offset``.
        kernel_step: kernel index ``j`` lies at ``kernel_step·j``.
        stride: distance of neighbouring outputs.
        outputs: number of outputs.
        extent: coordinates ``0 <= y < extent`` make up the padded image; a product
            with an image value outside is an RCP.

    Example:
        >>> Axis(1, 0, 1, stride=1, outputs=3, extent=5).reach(2, 2)
        (0, 2)
    """

    image_step: int
    image_offset: int
    kernel_step: int
    stride: int
    outputs: int
    extent: int

    def reach(self, low: int, high: int) -> tuple[int, int]:
        """Range rule: kernel coordinates that image values at ``low..high`` can meet.

        Returns the smallest and the largest. A valid product has ``y - r = stride·u``
        with ``0 <= u < outputs``, so ``y - stride·(outputs - 1) <= r <= y``.
        """
        return low - self.stride * (self.outputs - 1), high

    @property
    def as_tuple(self) -> tuple[int, int, int, int, int]:
        """The first five numbers, in this order, for compiled kernels."""
        return (
            self.image_step,
            self.image_offset,
            self.kernel_step,
            self.stride,
            self.outputs,
        )


@dataclass(frozen=True, eq=False)
class OuterProduct:
    """Blocks of image and kernel planes, as masks, and their coordinates.

    Attributes:
        images: boolean, (blocks, images per block, rows, columns).
        kernels: boolean, (blocks, kernels per block, rows, columns).
        rows, columns: the coordinates along the two axes.
        image_is_second: True if the image planes hold the product's second operand.

    Example:
        >>> axis = Axis(1, 0, 1, stride=1, outputs=1, extent=2)
        >>> ones = np.ones((1, 1, 2, 2), bool)
        >>> OuterProduct(ones, ones, axis, axis).image_nonzeros
        array([[4]])
    """

    images: np.ndarray
    kernels: np.ndarray
    rows: Axis
    columns: Axis
    image_is_second: bool = False

    @cached_property
    def image_nonzeros(self) -> np.ndarray:
        """Non-zeros per image plane, int64 of shape (blocks, images per block)."""
        return self.images.sum((2, 3), dtype=np.int64)

    @cached_property
    def kernel_nonzeros(self) -> np.ndarray:
        """Non-zeros per kernel plane, int64 of shape (blocks, kernels per block)."""
        return self.kernels.sum((2, 3), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class VectorPairs:
    """Non-zeros of the two vectors of every summation index of a matrix product.

    Attributes:
        image_nonzeros: of the first operand, int64 of shape (indices, 1).
        kernel_nonzeros: of the second operand, int64 of shape (indices, 1).
        image_is_second: always False.

    Example:
        >>> VectorPairs(np.array([[2]]), np.array([[3]])).image_nonzeros.shape
        (1, 1)
    """

    image_nonzeros: np.ndarray
    kernel_nonzeros: np.ndarray
    image_is_second: ClassVar[bool] = False


Planes = OuterProduct | VectorPairs


def planes_of(product: LayerProduct, matmul_tile: int | None = None) -> Planes:
    """The planes of a convolution, or the vectors of a matrix product, that meet.

    Args:
        product: in canonical form (:attr:`LayerProduct.canonical`).
        matmul_tile: None: a matrix product meets by index. A number: in tiles of so many
            rows and columns of its result (:func:`tiled_matmul`).

    Raises:
        ValueError: the product has no operands, or one holds a NaN or an infinity.
    """
    if isinstance(product.geometry, MatmulGeometry):
        if matmul_tile is None:
            return _vector_pairs(product)
        return tiled_matmul(product, matmul_tile)
    _, convolution = planar(product.kind, product.geometry)
    return _outer_product(product.as_convolution(), convolution)


def _outer_product(product: LayerProduct, geometry: Conv2dGeometry) -> OuterProduct:
    rows, columns = (axis_of(product.kind, geometry, axis) for axis in (0, 1))
    n, g = geometry.batch, geometry.groups
    c, k = geometry.in_channels // g, geometry.out_channels // g
    mask = dict(zip(product.kind.operands, product.masks, strict=True))
    if product.kind is Product.FORWARD:  # blocks: input channels
        images = mask["input"].swapaxes(0, 1)
        weight = mask["weight"].reshape(g, k, c, *geometry.kernel)
        kernels = weight.swapaxes(1, 2).reshape(g * c, k, *geometry.kernel)
    elif product.kind is Product.INPUT_GRAD:  # blocks: output channels
        images = mask["grad_output"].swapaxes(0, 1)
        weight = mask["weight"].reshape(g * k, c, *geometry.kernel)
        kernels = weight[:, :, ::-1, ::-1]
    else:  # blocks: samples
        images, kernels = (
            mask[name].reshape(n, g, channels, *mask[name].shape[2:]).swapaxes(0, 1)
            for name, channels in (("input", c), ("grad_output", k))
        )
        images = images.reshape(g * n, c, *images.shape[3:])
        kernels = kernels.reshape(g * n, k, *kernels.shape[3:])
    return OuterProduct(
        np.ascontiguousarray(images),
        np.ascontiguousarray(kernels),
        rows,
        columns,
        image_is_second=product.kind is Product.WEIGHT_GRAD,
    )


def axis_of(kind: Product, geometry: Conv2dGeometry, axis: int) -> Axis:
    """Coordinates along one axis, by the table in the module's docstring."""
    size = (geometry.height, geometry.width)[axis]
    outputs = (geometry.out_height, geometry.out_width)[axis]
    taps, stride = geometry.kernel[axis], geometry.stride[axis]
    padding, dilation = geometry.padding[axis], geometry.dilation[axis]
    if kind is Product.FORWARD:
        return Axis(1, padding, dilation, stride, outputs, size + 2 * padding)
    if kind is Product.INPUT_GRAD:
        reach = dilation * (taps - 1)
        return Axis(stride, reach - padding, dilation, 1, size, size + reach)
    return Axis(1, padding, stride, dilation, taps, size + 2 * padding)


#: Whether the summation index of each operand is its last axis, as in X[m, i]·W[n, i],
#: G[m, n]·W[n, i] and G[m, n]·X[m, i].
_SUMMED_LAST = {
    Product.FORWARD: (True, True),
    Product.INPUT_GRAD: (True, False),
    Product.WEIGHT_GRAD: (False, False),
}


def _by_index(product: LayerProduct) -> Iterator[np.ndarray]:
    """Both operands of a matrix product as (batch, summed, free), views."""
    for mask, last in zip(product.masks, _SUMMED_LAST[product.kind], strict=True):
        matrices = mask.reshape(-1, *mask.shape[-2:])
        yield matrices.swapaxes(1, 2) if last else matrices


def _vector_pairs(product: LayerProduct) -> VectorPairs:
    """Non-zeros of both operands by summation index."""
    image, kernel = (
        mask.sum(2, dtype=np.int64).reshape(-1, 1) for mask in _by_index(product)
    )
    return VectorPairs(image, kernel)


def tiled_matmul(product: LayerProduct, tile: int) -> OuterProduct:
    """A matrix product as planes that meet whole, by the second table of the module.

    Args:
        product: a matrix product, with masks for operands.
        tile: rows, and columns, of the result that one pair of planes computes.

    Returns:
        A block for each product of a batch; the last tile is filled up with zeros.
    """
    planes = []
    for mask in _by_index(product):
        batch, summed, free = mask.shape
        width = min(tile, free)
        tiles = ceil_div(free, width)
        filled = np.pad(mask, ((0, 0), (0, 0), (0, tiles * width - free)))
        cut = filled.reshape(batch, summed, tiles, width).swapaxes(1, 2)
        planes.append(np.ascontiguousarray(cut))
    images, kernels = planes
    summed, height = images.shape[2:]
    width = kernels.shape[3]
    return OuterProduct(images, kernels, _index_axis(summed), _tile_axis(height, width))


def _index_axis(summed: int) -> Axis:
    """Coordinates down a tiled matrix product: its summation index."""
    return Axis(1, 0, 1, stride=1, outputs=1, extent=summed)


def _tile_axis(height: int, width: int) -> Axis:
    """Coordinates across a tile of ``height`` by ``width`` results."""
    size = height * width
    return Axis(width, width - 1, 1, stride=1, outputs=size, extent=size)


def is_folded(product: LayerProduct) -> bool:
    """Whether the planar mapping folds the product: a matrix product of a single row."""
    return isinstance(product.geometry, MatmulGeometry) and product.geometry.rows == 1


def laid_out(product: LayerProduct) -> OuterProduct:
    """The planes of a product in a mapping that lays images out on a grid.

    Args:
        product: in canonical form.
    """
    if is_folded(product):
        return folded_matmul(product)
    if isinstance(product.geometry, MatmulGeometry):
        product = imaged_matmul(product)
    _, convolution = planar(product.kind, product.geometry)
    return _outer_product(product.as_convolution(), convolution)


def imaged_matmul(product: LayerProduct) -> LayerProduct:
    """A matrix product as a 1x1 convolution over one image of its rows.

    The image is as square as can be, its last pixels zeros where the rows do not fill
    it; the products of a batch are groups.

    Args:
        product: a matrix product, with masks for operands.
    """
    geometry = product.geometry
    assert isinstance(geometry, MatmulGeometry)
    width = math.isqrt(geometry.rows - 1) + 1
    height = -(-geometry.rows // width)
    channels, filters = (
        geometry.batch * geometry.inner,
        geometry.batch * geometry.columns,
    )
    image = Conv2dGeometry(
        1, channels, height, width, filters, 1, groups=geometry.batch
    )
    operands = {}
    for name, mask in product.operands.items():
        if name != "weight":  # (batch, rows, channels): pixels come last, filled up
            pixels = mask.reshape(-1, *mask.shape[-2:]).swapaxes(1, 2)
            filling = height * width - geometry.rows
            mask = np.pad(pixels, ((0, 0), (0, 0), (0, filling)))
        operands[name] = mask.reshape(image.shape_of(name))
    first, second = (operands[name] for name in product.kind.operands)
    return LayerProduct(
        product.kind,
        image,
        first,
        second,
        product.name,
        product.step,
        product.arithmetic,
    )


def folded_matmul(product: LayerProduct, side: int = 16) -> OuterProduct:
    """A matrix product as a convolution with one output pixel.

    The summation index, filled up with zeros to a multiple of ``side²``, is folded into
    channels of ``side`` by ``side`` planes, a group for each entry of the batch; rows
    of the first operand are samples, those of the second are filters. Products of
    different places in a plane are RCPs.
    """
    blocks = []
    for mask in _by_index(product):
        vectors = mask.swapaxes(1, 2)  # (batch, free, summed)
        padding = -vectors.shape[2] % side**2
        vectors = np.pad(vectors, ((0, 0), (0, 0), (0, padding)))
        folded = vectors.reshape(*vectors.shape[:2], -1, side, side).swapaxes(1, 2)
        planes = folded.reshape(-1, vectors.shape[1], side, side)
        blocks.append(np.ascontiguousarray(planes))
    axis = Axis(1, 0, 1, 1, 1, side)
    return OuterProduct(blocks[0], blocks[1], axis, axis)


def plane_bits(product: LayerProduct, planes: Planes) -> tuple[Fraction, Fraction]:
    """Bits of a value of the image planes, and of the kernel planes."""
    n = numbers_of(product.canonical_shape.as_convolution().arithmetic)
    return (n.second, n.first) if planes.image_is_second else (n.first, n.second)
