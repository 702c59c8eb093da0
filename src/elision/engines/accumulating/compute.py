"""A product under an accumulator: its operands in order, its sums, its result."""

import zlib
from dataclasses import replace

import torch
from torch import Tensor

from elision.engines.accumulating import integer_kernel, integers, kernel, oracle
from elision.engines.accumulating.summation import Summation, Sums
from elision.formats import fast_round, format_named
from elision.formats.accumulate import INT32, Accumulate
from elision.products import Conv2dGeometry, LayerProduct, Product
from elision.products.terms import term_order
from elision.products.unfolded import by_planes

__all__ = ["compute", "random_key"]

_LOW = 0xFFFF_FFFF

#: 2^32 over the golden ratio: tells the random bits of a product's parts apart.
_GOLDEN = 0x9E37_79B9


def compute(product: LayerProduct, accumulate: Accumulate, key: int = 0) -> Tensor:
    """One product, summed as ``accumulate`` says.

    Args:
        product: of any layer, with its operands as torch tensors of any floating-point
            dtype; they are read as float32.
        accumulate: the cell of the product.
        key: of the random bits of stochastic rounding, from :func:`random_key`.

    Returns:
        ``Y``, ``dX`` or ``dW`` in torch layout and the operands' dtype.

    Raises:
        ValueError: an int32 sum of operands that are no whole numbers times one scale.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> ones = torch.ones(1, 4096)
        >>> of_ones = LayerProduct(Product.FORWARD, MatmulGeometry(1, 4096, 1), ones, ones)
        >>> compute(of_ones, Accumulate("fp16")).item()  # 2048 + 1 is no half
        2048.0
        >>> compute(of_ones, Accumulate("fp16", chunk=128)).item()
        4096.0
    """
    dtype = product.first.dtype
    if accumulate.format == "torch":
        result = product.compute()
    else:
        with torch.no_grad(), torch.autocast(product.first.device.type, enabled=False):
            sums = _way(product, accumulate)
            try:
                result = in_order(product, accumulate, sums, key)
            except integers.NotFiniteError:
                result = _where_finite(product, accumulate, sums, key)
    if accumulate.result != "torch":
        format = format_named(accumulate.result)
        result = fast_round(format, result.float())
    result = result.to(dtype)
    if _is_channels_last(product.first) or _is_channels_last(product.second):
        return result.contiguous(memory_format=torch.channels_last)
    return result


def _is_channels_last(x: Tensor) -> bool:
    """Whether a tensor has that memory format, which products pass on, and no other."""
    return (
        x.dim() == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


def in_order(
    product: LayerProduct, accumulate: Accumulate, sums: Sums, key: int = 0
) -> Tensor:
    """One product in float32, its ordered sums by ``sums``."""
    own = product.as_convolution()
    if isinstance(own.geometry, Conv2dGeometry):
        out = _planar(own, accumulate, sums, key)
    else:

        def numbered(part: LayerProduct, number: int) -> Tensor:
            return _planar(part, accumulate, sums, (key + number * _GOLDEN) & _LOW)

        out = by_planes(own, numbered)
    return product.geometry.from_convolution(product.kind.absent, out)


def _where_finite(
    product: LayerProduct, accumulate: Accumulate, sums: Sums, key: int
) -> Tensor:
    """The sums whose terms are all finite, and NaN for the others.

    So a run that diverges goes on until its loss says so.
    """
    finite = [x.isfinite() for x in (product.first, product.second)]
    first, second = (
        torch.where(f, x, 0)
        for f, x in zip(finite, (product.first, product.second), strict=True)
    )
    own = replace(product, first=first, second=second)
    result = in_order(own, accumulate, sums, key)
    bad = [(~f).float() for f in finite]
    ones = [torch.ones_like(f) for f in bad]
    touched = [
        replace(product, first=a, second=b).compute()
        for a, b in ((bad[0], ones[1]), (ones[0], bad[1]))
    ]
    return torch.where(touched[0] + touched[1] > 0, torch.nan, result)


def _planar(own: LayerProduct, accumulate: Accumulate, sums: Sums, key: int) -> Tensor:
    """One product of a 2-D convolution in float32."""
    assert isinstance(own.geometry, Conv2dGeometry)
    order = term_order(own.kind, own.geometry)
    read = {name: x.detach().float() for name, x in own.operands.items()}
    a, b = read[order.a].contiguous(), read[order.b].contiguous()
    out = a.new_zeros(own.result_shape)
    sums(Summation(order, a, b, out, accumulate, key))
    return out


def _way(product: LayerProduct, accumulate: Accumulate) -> Sums:
    if accumulate.format == INT32:
        if product.first.is_cpu and integer_kernel.can_compute(accumulate):
            return integer_kernel.sums
        return integers.sums
    if product.first.is_cpu and kernel.can_compute(accumulate):
        return kernel.sums
    return oracle.quick_sums


def random_key(accumulate: Accumulate, name: str, kind: Product, step: int) -> int:
    """The key of a product's random bits: 32 bits of all that tells it from another.

    Args:
        accumulate: gives the seed.
        name: of the layer.
        kind: of the product.
        step: training steps before this one.

    Example:
        >>> cell = Accumulate("fp16", rounding="stochastic")
        >>> keys = {random_key(cell, "conv", kind, 0) for kind in Product}
        >>> len(keys), random_key(cell, "conv", Product.FORWARD, 0) in keys
        (3, True)
    """
    words = f"{accumulate.seed} {name} {kind.value} {step}"
    return zlib.crc32(words.encode()) & _LOW
