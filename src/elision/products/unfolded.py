"""A 3-D convolution as 2-D ones, its depth unfolded into images and channels.

An output plane reads one input plane a tap of the depth. So the forward product and the
weight gradient are those of a 2-D convolution whose images are the output planes and whose
channels are the pairs of a channel and a tap. The input gradient is one 2-D convolution's
for each residue of a plane's place modulo the stride, with the taps that reach it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from elision.products.convolution import Conv2dGeometry, Conv3dGeometry
from elision.products.kinds import Product
from elision.products.layer_product import LayerProduct
from elision.products.terms import residues

__all__ = ["by_planes"]

#: Computes a product of a 2-D convolution; given is its number, too.
Planar = Callable[[LayerProduct, int], Tensor]


def by_planes(product: LayerProduct, compute: Planar) -> Tensor:
    """A product of a 3-D convolution from products of 2-D ones.

    Args:
        product: with its operands as torch tensors.
        compute: called with each product of a 2-D convolution and its number, from 0.

    Example:
        >>> layer = Conv3dGeometry(1, 2, 4, 5, 5, 3, kernel=2)
        >>> x, w = (torch.ones(layer.shape_of(o)) for o in ("input", "weight"))
        >>> product = LayerProduct(Product.FORWARD, layer, x, w)
        >>> found = by_planes(product, lambda planar, _: planar.compute())
        >>> torch.equal(found, product.compute())
        True
    """
    geometry = product.geometry
    assert isinstance(geometry, Conv3dGeometry)
    operands = product.operands
    if product.kind is Product.INPUT_GRAD:
        return _input_grad(
            geometry, operands["grad_output"], operands["weight"], compute
        )
    planar = _planar(
        geometry,
        geometry.batch * geometry.out_sizes[0],
        geometry.in_channels * geometry.kernel[0],
        geometry.out_channels,
    )
    x = _windows(geometry, operands["input"])
    if product.kind is Product.FORWARD:
        w = operands["weight"].reshape(planar.shape_of("weight"))
        y = compute(LayerProduct(Product.FORWARD, planar, x, w), 0)
        return y.unflatten(0, (geometry.batch, -1)).transpose(1, 2).contiguous()
    g = operands["grad_output"].transpose(1, 2).flatten(0, 1)
    dw = compute(LayerProduct(Product.WEIGHT_GRAD, planar, g, x), 0)
    return dw.reshape(geometry.shape_of("weight"))


def _windows(geometry: Conv3dGeometry, x: Tensor) -> Tensor:
    """The planes that each output plane reads, ``(N·P, C·taps, H, W)``."""
    outputs = torch.arange(geometry.out_sizes[0]) * geometry.stride[0]
    taps = torch.arange(geometry.kernel[0]) * geometry.dilation[0]
    return _images(_planes(x, outputs[:, None] + taps - geometry.padding[0]))


def _input_grad(
    geometry: Conv3dGeometry, grad: Tensor, weight: Tensor, compute: Planar
) -> Tensor:
    dx = grad.new_zeros(geometry.shape_of("input"))
    for number, each in enumerate(residues(geometry, 0)):
        places, taps = torch.arange(each.count)[:, None], torch.arange(each.taps)
        g = _images(_planes(grad, each.output + places - each.back * taps))
        w = weight[:, :, each.tap :: each.step][:, :, : each.taps]
        w = w.transpose(1, 2).flatten(0, 1)
        images = geometry.batch * each.count
        planar = _planar(geometry, images, geometry.in_channels, len(w))
        planes = compute(LayerProduct(Product.INPUT_GRAD, planar, g, w), number)
        planes = planes.unflatten(0, (geometry.batch, -1)).transpose(1, 2)
        dx[:, :, each.first :: geometry.stride[0]] = planes
    return dx


def _planes(x: Tensor, places: Tensor) -> Tensor:
    """Planes ``(N, C, *places, H, W)`` of images; zeros beyond their depth."""
    depth = x.shape[2]
    inside = ((places >= 0) & (places < depth)).to(x.device)
    found = x[:, :, places.clamp(0, depth - 1).to(x.device)]
    return torch.where(inside[..., None, None], found, found.new_zeros(()))


def _images(planes: Tensor) -> Tensor:
    """``(N, C, places, taps, H, W)`` as ``(N·places, C·taps, H, W)``."""
    return planes.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _planar(
    geometry: Conv3dGeometry, images: int, channels: int, filters: int
) -> Conv2dGeometry:
    """The 2-D convolution of the two axes behind the depth."""
    return Conv2dGeometry(
        images,
        channels,
        geometry.height,
        geometry.width,
        filters,
        geometry.kernel[1:],
        geometry.stride[1:],
        geometry.padding[1:],
        geometry.dilation[1:],
        geometry.groups,
    )
