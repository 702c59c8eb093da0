"""The three products as sums of terms in a stated order.

Where rounding happens inside a sum, its order is part of the result. This module states
it once, for every layer: each product is one or more *ordered sums*

    out[m, n] = Σ_t a[m, t] · b[t, n]        t = 0, 1, 2, ...

whose indices m, t and n each run over up to three axes, row by row, the last fastest:

    product       m   n                  t: the order of summation
    forward       k   (image, p, q)      (input channel, tap row, tap column)
    input_grad    c   (image, y, x)      (output channel, tap row, tap column)
    weight_grad   k   (c, r, s)          (image, p, q)

Padding counts: a term that reads a padding pixel is a zero with a place of its own, so
that all outputs have their chunks in the same places. The input gradient of a strided
convolution has one ordered sum for each residue of the pixel modulo the stride, with only
the taps that reach such a pixel; no inserted zeros are counted, but pixels of G beyond
its border are, as padding is. A matrix product is a convolution of 1x1 taps; what
is convolved over a line has images of one row. Of a convolution over three axes the planes
along the first are images and its taps belong to the channels
(:mod:`elision.products.unfolded`).
"""

import functools
import math
from dataclasses import dataclass
from itertools import product as pairs
from typing import Any

import torch
from torch import Tensor

from elision.products.convolution import Conv2dGeometry, Convolution
from elision.products.kinds import Product

__all__ = ["OrderedSum", "Residue", "TermOrder", "residues", "term_order"]

#: One number for each of an index's three axes.
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class OrderedSum:
    """``out[m, n] = Σ_t a[m, t] · b[t, n]`` for each group, by sizes and strides.

    Attributes:
        groups: independent sums of this form.
        m, t, n: sizes of the axes of the three indices.
        a, b, out: where group 0 begins in each tensor.
        a_group, b_group, out_group: distance of the next group.
        a_m, a_t, b_t, b_n, out_m, out_n: distances along the axes of an index.

    Example:
        >>> order = term_order(Product.FORWARD, Conv2dGeometry(1, 2, 3, 3, 4, kernel=2))
        >>> order.sums[0].terms, order.sums[0].t
        (8, (2, 2, 2))
    """

    groups: int
    m: Triple
    t: Triple
    n: Triple
    a: int
    b: int
    out: int
    a_group: int
    b_group: int
    out_group: int
    a_m: Triple
    a_t: Triple
    b_t: Triple
    b_n: Triple
    out_m: Triple
    out_n: Triple

    @property
    def terms(self) -> int:
        """Terms of one sum."""
        return math.prod(self.t)

    def a_places(self) -> Tensor:
        """Flat index of ``a[m, t]`` in its tensor, int64 ``(groups, M, T)``."""
        return _places(self, self.a, self.a_group, self.m, self.a_m, self.t, self.a_t)

    def b_places(self) -> Tensor:
        """Flat index of ``b[t, n]`` in its padded tensor, int64 ``(groups, T, N)``."""
        return _places(self, self.b, self.b_group, self.t, self.b_t, self.n, self.b_n)

    def out_places(self) -> Tensor:
        """Flat index of ``out[m, n]`` in the result, int64 ``(groups, M, N)``."""
        return _places(
            self, self.out, self.out_group, self.m, self.out_m, self.n, self.out_n
        )


@dataclass(frozen=True)
class TermOrder:
    """A product as ordered sums over its operands.

    Attributes:
        a, b: names of the operands in their roles.
        padding: zeros around the images of ``b``: left, right, top, bottom, as
            ``torch.nn.functional.pad`` takes them.
        sums: the ordered sums; results in no sum are zero.

    Example:
        >>> layer = Conv2dGeometry(1, 2, 5, 5, 4, kernel=3, stride=2, padding=1)
        >>> order = term_order(Product.INPUT_GRAD, layer)
        >>> order.a, order.b, [s.terms for s in order.sums]
        ('weight', 'grad_output', [4, 8, 8, 16])
    """

    a: str
    b: str
    padding: tuple[int, int, int, int]
    sums: tuple[OrderedSum, ...]


@functools.lru_cache(maxsize=1024)
def term_order(kind: Product, geometry: Conv2dGeometry) -> TermOrder:
    """The ordered sums of a product; the module says in which order.

    Args:
        kind: the product.
        geometry: shape of the convolution.
    """
    if kind is Product.INPUT_GRAD:
        return _input_grad(geometry)
    v = geometry
    (pad_y, pad_x), (rows, columns) = v.padding, v.kernel
    height, width = v.height + 2 * pad_y, v.width + 2 * pad_x
    filters, channels = v.out_channels // v.groups, v.in_channels // v.groups
    image = v.in_channels * height * width
    pixel = (image, v.stride[0] * width, v.stride[1])
    tap = (height * width, v.dilation[0] * width, v.dilation[1])
    taps = (channels, rows, columns)
    weight, plane = math.prod(taps), v.out_height * v.out_width
    of_filter, of_tap = (0, 0, weight), (rows * columns, columns, 1)
    pixels = (v.batch, v.out_height, v.out_width)
    of_plane = (0, 0, plane)
    of_pixel = (v.out_channels * plane, v.out_width, 1)
    padding = (pad_x, pad_x, pad_y, pad_y)
    m, x_group = (1, 1, filters), channels * height * width
    if kind is Product.FORWARD:
        only = OrderedSum(
            groups=v.groups,
            m=m,
            t=taps,
            n=pixels,
            a=0,
            b=0,
            out=0,
            a_group=filters * weight,
            b_group=x_group,
            out_group=filters * plane,
            a_m=of_filter,
            a_t=of_tap,
            b_t=tap,
            b_n=pixel,
            out_m=of_plane,
            out_n=of_pixel,
        )
        return TermOrder("weight", "input", padding, (only,))
    only = OrderedSum(
        groups=v.groups,
        m=m,
        t=pixels,
        n=taps,
        a=0,
        b=0,
        out=0,
        a_group=filters * plane,
        b_group=x_group,
        out_group=filters * weight,
        a_m=of_plane,
        a_t=of_pixel,
        b_t=pixel,
        b_n=tap,
        out_m=of_filter,
        out_n=of_tap,
    )
    return TermOrder("grad_output", "input", padding, (only,))


@dataclass(frozen=True)
class Residue:
    """One axis of the input gradient: the pixels of one residue modulo the stride.

    Attributes:
        first, count: its first pixel, and how many there are.
        tap, step, taps: the first tap that reaches them, the distance of the next, and
            how many there are.
        output: the output pixel that the first tap reaches from the first pixel.
        back: output pixels from one tap back to the next.

    Example:
        >>> layer = Conv2dGeometry(1, 1, 5, 5, 1, kernel=3, stride=2, padding=1)
        >>> [(r.first, r.count, r.taps) for r in residues(layer, 0)]
        [(0, 3, 1), (1, 2, 2)]
    """

    first: int
    count: int
    tap: int
    step: int
    taps: int
    output: int
    back: int

    @property
    def lowest(self) -> int:
        """The lowest output pixel read, which may lie before the first."""
        return self.output - self.back * (self.taps - 1)

    @property
    def highest(self) -> int:
        """The highest output pixel read."""
        return self.output + self.count - 1


def residues(geometry: Convolution[Any], axis: int) -> list[Residue]:
    """The residues of an axis of a convolution that any tap reaches."""
    stride, dilation = geometry.stride[axis], geometry.dilation[axis]
    padding, kernel = geometry.padding[axis], geometry.kernel[axis]
    size = geometry.sizes[axis]
    step = stride // math.gcd(stride, dilation)
    found = []
    for first in range(min(stride, size)):
        reached = first + padding
        taps = [r for r in range(kernel) if (reached - r * dilation) % stride == 0]
        if taps:
            found.append(
                Residue(
                    first=first,
                    count=-(-(size - first) // stride),
                    tap=taps[0],
                    step=step,
                    taps=len(taps),
                    output=(reached - taps[0] * dilation) // stride,
                    back=step * dilation // stride,
                )
            )
    return found


def _input_grad(v: Conv2dGeometry) -> TermOrder:
    by_row, by_column = residues(v, 0), residues(v, 1)
    top = max([0, *(-r.lowest for r in by_row)])
    left = max([0, *(-r.lowest for r in by_column)])
    bottom = max([0, *(r.highest - v.out_height + 1 for r in by_row)])
    right = max([0, *(r.highest - v.out_width + 1 for r in by_column)])
    height, width = v.out_height + top + bottom, v.out_width + left + right
    filters, channels = v.out_channels // v.groups, v.in_channels // v.groups
    rows, columns = v.kernel
    weight = channels * rows * columns
    sums = tuple(
        OrderedSum(
            groups=v.groups,
            m=(1, 1, channels),
            t=(filters, y.taps, x.taps),
            n=(v.batch, y.count, x.count),
            a=y.tap * columns + x.tap,
            b=(y.output + top) * width + x.output + left,
            out=y.first * v.width + x.first,
            a_group=filters * weight,
            b_group=filters * height * width,
            out_group=channels * v.height * v.width,
            a_m=(0, 0, rows * columns),
            a_t=(weight, y.step * columns, x.step),
            b_t=(height * width, -y.back * width, -x.back),
            b_n=(v.out_channels * height * width, width, 1),
            out_m=(0, 0, v.height * v.width),
            out_n=(
                v.in_channels * v.height * v.width,
                v.stride[0] * v.width,
                v.stride[1],
            ),
        )
        for y, x in pairs(by_row, by_column)
    )
    return TermOrder("weight", "grad_output", (left, right, top, bottom), sums)


def _places(
    of: OrderedSum,
    start: int,
    group: int,
    first: Triple,
    first_strides: Triple,
    second: Triple,
    second_strides: Triple,
) -> Tensor:
    groups = torch.arange(of.groups).view(-1, 1, 1) * group + start
    rows = _walk(first, first_strides).view(1, -1, 1)
    return groups + rows + _walk(second, second_strides)


def _walk(sizes: Triple, strides: Triple) -> Tensor:
    """Distances that an index walks, the last axis fastest."""
    steps = [torch.arange(n) * s for n, s in zip(sizes, strides, strict=True)]
    return (steps[0].view(-1, 1, 1) + steps[1].view(-1, 1) + steps[2]).flatten()
