"""Winograd's convolution by the native kernel: forward products of 3x3 layers, and dX.

The input gradient of a convolution of stride 1 is the forward product of the gradient and
the filters with rotated taps and exchanged channels, so one kernel gives both.
"""

import ctypes

import torch
from torch import Tensor

from elision.engines.native.direct import (
    Post,
    convolution_numbers,
    padded_vectors,
    side_by_side,
)
from elision.native.shared_object import load
from elision.products import Conv2dGeometry, Geometry, LayerProduct, Product

__all__ = ["TILES", "native_product", "why_not"]

#: Outputs of a tile that the kernel knows, F(2, 3) and F(4, 3).
TILES = (2, 4)

#: Channels that its widest register holds.
LANES = 16


def why_not(kind: Product, geometry: Geometry) -> str | None:
    """Why the kernel does not compute a product, in a few words; None if it does.

    Example:
        >>> layer = Conv2dGeometry(1, 16, 9, 9, 32, kernel=3, stride=2)
        >>> why_not(Product.FORWARD, layer)
        'stride (2, 2)'
    """
    if kind is Product.WEIGHT_GRAD:
        return "the weight gradient"
    if not isinstance(geometry, Conv2dGeometry):
        return geometry.description
    for name, value, needed in (
        ("kernel", geometry.kernel, (3, 3)),
        ("stride", geometry.stride, (1, 1)),
        ("dilation", geometry.dilation, (1, 1)),
        ("groups", geometry.groups, 1),
    ):
        if value != needed:
            return f"{name} {value}"
    if geometry.in_channels % LANES or geometry.out_channels % LANES:
        return f"{geometry.in_channels} to {geometry.out_channels} channels"
    if kind is Product.INPUT_GRAD and max(geometry.padding) > 2:
        return f"padding {geometry.padding}"
    return None


def native_product(product: LayerProduct, m: int, post: Post | None = None) -> Tensor:
    """``Y`` or ``dX`` of a 3x3 convolution by the kernel.

    A value that is not finite makes its whole tile NaN; operands and results below 1.2e-38,
    the smallest normal float32, count as zero.

    Args:
        product: of float32 tensors on the CPU; both channel counts multiples of 16, stride
            and dilation 1, no groups.
        m: outputs of a tile along each axis, 2 or 4.
        post: done to each output of the forward product.

    Returns:
        The result, ``channels_last``.

    Raises:
        ValueError: another layer, product, dtype, device or ``m``; ``post`` for dX.
        elision.native.builder.BuildError: there are no native kernels here.
        MemoryError: the kernels ran out of memory.

    Example:
        >>> layer = Conv2dGeometry(1, 16, 6, 6, 16, kernel=3, padding=1)
        >>> x, w = torch.randn(1, 16, 6, 6), torch.randn(16, 16, 3, 3)
        >>> product = LayerProduct(Product.FORWARD, layer, x, w)
        >>> y = native_product(product, m=4)
        >>> bool((y - product.compute()).abs().max() < 1e-4 * y.abs().max())
        True
    """
    geometry, kind = product.geometry, product.kind
    reason = why_not(kind, geometry)
    if reason is None and m not in TILES:
        reason = f"m={m}"
    if reason is not None or not isinstance(geometry, Conv2dGeometry):
        raise ValueError(
            f"the Winograd kernel computes Y and dX of 3x3 layers of stride and dilation 1, "
            f"multiples of {LANES} channels, m = 2 or 4, padding of dX <= 2; not {reason}"
        )
    for name, value in product.operands.items():
        if value.dtype != torch.float32 or value.device.type != "cpu":
            raise ValueError(
                f"the Winograd kernel computes float32 on the CPU; {name} is "
                f"{value.dtype} on {value.device}"
            )
    if kind is Product.FORWARD:
        post = post or Post()
        post.check(geometry.out_channels)
        return _forward(geometry, product.first, product.second, m, post)
    if post is not None:
        raise ValueError(f"native_product(post=): not for {kind.value}")
    vertical, horizontal = geometry.padding
    turned = Conv2dGeometry(
        geometry.batch,
        geometry.out_channels,
        geometry.out_height,
        geometry.out_width,
        geometry.in_channels,
        geometry.kernel,
        padding=(2 - vertical, 2 - horizontal),
    )
    weight = product.second.flip(2, 3).transpose(0, 1)
    return _forward(turned, product.first, weight, m, Post())


def _forward(
    geometry: Conv2dGeometry, x: Tensor, weight: Tensor, m: int, post: Post
) -> Tensor:
    x, weight = side_by_side(x), weight.contiguous()
    y = torch.empty(
        geometry.shape_of("grad_output"),
        dtype=torch.float32,
        device="cpu",
        memory_format=torch.channels_last,
    )
    vectors = padded_vectors(post)
    places = [None if value is None else value.data_ptr() for value in vectors]
    sides = (geometry.in_channels, geometry.out_channels)
    done = load().elision_winograd_forward(
        (ctypes.c_int64 * 15)(*convolution_numbers(geometry, sides)),
        m,
        x.data_ptr(),
        weight.data_ptr(),
        *places,
        post.relu,
        y.data_ptr(),
        torch.get_num_threads(),
    )
    if done < 0:
        raise MemoryError("the native kernels ran out of memory")
    return y
