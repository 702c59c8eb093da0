"""Native kernels on drawn operands: what is done to tensors value by value, or summed oddly.

As in :mod:`campaigns.kernels`, each function is one trial.
"""

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from campaigns.drawn import Draw, check_near
from elision.engines.accumulating import ChainOverflowWarning, compute
from elision.engines.native import library
from elision.engines.native.blocked import passes
from elision.engines.native.ternary import PackedTernary, quantised
from elision.engines.native.ternary_kernel import TernaryKernel
from elision.engines.native.ternary_sums import AddedTernary, planes
from elision.formats import FORMATS
from elision.formats.accumulate import Accumulate, sums_in
from elision.formats.native import largest_rounded, rounded
from elision.formats.ternary_blocks import rows_of, ternary_blocks
from elision.functional import k_tanh
from elision.native.shared_object import load
from elision.operands import TopK
from elision.products import LayerProduct, MatmulGeometry, Product

__all__ = [
    "accumulated",
    "between_layers",
    "ceilings",
    "integer_sums",
    "k_tanh_of_values",
    "largest",
    "rounding",
    "sent",
    "ternary",
]

_ROUNDINGS = ("nearest", "zero", "stochastic")


def between_layers(draw: Draw) -> None:
    """Batch normalisation and max pooling of a blocked tensor."""
    n, c, height, width = (draw.size(1, most) for most in (34, 6, 12, 12))
    (x, _), (g, _), (more, _) = (
        library.to_blocked(draw.values(n, c, height, width)) for _ in range(3)
    )
    scale, shift = (draw.values(c) if draw.chance(0.7) else None for _ in range(2))
    mean, variance = draw.values(c), draw.values(c).abs()
    train, relu, residual = (draw.chance(0.5) for _ in range(3))
    inverse, affine = passes.norm_statistics(
        x, scale, shift, mean, variance, images=n, eps=1e-5, train=train
    )
    y = passes.norm_apply(x, affine, more if residual else None, images=n, relu=relu)
    passes.norm_backward(
        *(g, more if draw.chance(0.5) else None, x, y, affine, mean, inverse),
        images=n,
        relu=relu,
        train=train,
        residual=residual,
    )
    kernel, stride = ([draw.size(1, min(3, height, width))] * 2 for _ in range(2))
    window = [*kernel, *stride, *(side // 2 for side in kernel), draw.chance(0.3)]
    pooled = passes.max_pool_forward(x, window)
    passes.max_pool_backward(pooled, x, window)
    check_near(draw, library.from_blocked(pooled, n), _pooled(x, n, window))


def _pooled(x: Tensor, n: int, window: list[int]) -> Tensor:
    kernel, stride, padding = window[:2], window[2:4], window[4:6]
    plain = library.from_blocked(x, n)
    return torch.max_pool2d(plain, kernel, stride, padding, 1, bool(window[6]))


def largest(draw: Draw) -> None:
    """Thresholds, places and runs of the largest values."""
    x = draw.values(draw.size(1, 70000 if draw.chance(0.1) else 3000))
    keep = draw.choice((0.001, 0.1, 0.5, 1.0))
    library.threshold(x, keep, draw.choice((None, 100)))
    library.largest_places(x, draw.size(1, len(x)))
    sizes = [draw.size(0, 40) for _ in range(draw.size(1, 5))]
    runs = draw.values(sum(sizes), draw.size(1, 100))
    TopK(draw.choice((0.1, 0.9)), sample_size=100).of_runs(runs, sizes, [], True)


def sent(draw: Draw) -> None:
    """Values in 16 bits, with what is left over, and their means."""
    x = draw.values(draw.size(0, 300))
    dtype = draw.choice((torch.bfloat16, torch.float16))
    memory = draw.values(len(x)) if draw.chance(0.5) else None
    word = draw.placed(torch.empty_like(x, dtype=dtype))
    left = draw.placed(torch.empty_like(x)) if draw.chance(0.7) else None
    library.narrow(x, memory, word, left, draw.choice((100.0, float("inf"))))
    mean = draw.placed(torch.empty_like(x))
    library.widen(word, draw.size(1, 9), mean)


def rounding(draw: Draw) -> None:
    """Values of any format that has a kernel, scales included."""
    shape = [draw.size(1, most) for most in (5, 40, 40)[: draw.size(1, 3)]]
    x = draw.values(*shape).to(draw.choice((torch.float32, torch.bfloat16)))
    if draw.chance(0.3):
        x = x.transpose(0, -1)
    format = FORMATS[draw.choice(tuple(FORMATS))]
    way, seed = draw.choice(_ROUNDINGS), draw.size(0, 99)
    y = rounded(x, format, way, seed, draw.size(0, x.dim() - 1))
    largest_rounded(x, draw.choice((-1.0, 0.5)), format, way, seed)
    if y is not None and y.shape != x.shape:
        raise ArithmeticError(f"{tuple(x.shape)} became {tuple(y.shape)}")


def _product(draw: Draw) -> LayerProduct:
    """A small product of any kind, its operands not yet drawn."""
    kind = draw.choice(tuple(Product))
    if draw.chance(0.5):
        sizes = (draw.size(1, 40), draw.size(1, 300), draw.size(1, 60))
        return LayerProduct(kind, MatmulGeometry(*sizes))
    v = replace(draw.convolution(12), batch=draw.size(1, 3))
    groups = draw.choice((1, 1, 2))
    channels = (groups * v.in_channels, groups * v.out_channels)
    v = replace(v, in_channels=channels[0], out_channels=channels[1], groups=groups)
    return LayerProduct(kind, v)


def accumulated(draw: Draw) -> None:
    """A product whose partial sums are rounded to a format."""
    product = _product(draw)
    shapes = [product.geometry.shape_of(name) for name in product.kind.operands]
    first, second = (draw.values(*shape) for shape in shapes)
    names = [name for name, format in FORMATS.items() if sums_in(format)]
    format, chunk = draw.choice(names), draw.choice((0, 1, 7, 64))
    narrows = format != "fp32"
    rounding = draw.choice(_ROUNDINGS) if narrows else "nearest"
    each = not narrows or draw.chance(0.7)
    how = Accumulate(
        format,
        chunk,
        rounds="addition" if each else "chunk",
        rounding=rounding,
        compensated=each and narrows and rounding == "nearest" and draw.chance(0.5),
        wide=draw.choice(("fp32", "fp16", "bf16")) if chunk else "fp32",
    )
    compute(replace(product, first=first, second=second), how, draw.size(0, 99))


def integer_sums(draw: Draw) -> None:
    """A product of integers times scales, of 8 or 16 bits, whose chains may wrap around."""
    product, most = _product(draw), draw.choice((3, 127, 128, 32767))
    shapes = [product.geometry.shape_of(name) for name in product.kind.operands]
    step = draw.choice((1.0, 0.125))
    first, second = (draw.placed(step * draw.integers(most, *s)) for s in shapes)
    product = replace(product, first=first, second=second)
    how = Accumulate("int32", draw.choice((0, 1, 5, 64)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChainOverflowWarning)
        y = compute(product, how)
    if step == 1.0 and most < 128:
        exact = replace(product, first=first.double(), second=second.double())
        check_near(draw, y, exact.compute())


def ternary(draw: Draw) -> None:
    """Both kernels of ternary weights on a layer of groups."""
    v, groups = draw.convolution(40), draw.choice((1, 1, 2))
    channels = (groups * v.in_channels, groups * v.out_channels)
    v = replace(
        v,
        batch=draw.size(1, 5),
        in_channels=channels[0],
        out_channels=channels[1],
        groups=groups,
    )
    x = draw.values(*v.shape_of("input"))
    weight = torch.randn(v.shape_of("weight"))
    block, terms = draw.size(1, 256), draw.size(1, 3)
    blocks = [ternary_blocks(r, block, terms) for r in rows_of(weight).chunk(groups)]
    counts = [
        torch.randint(1, terms + 1, tuple(each.scales.shape[1:])) for each in blocks
    ]
    zero, bias = draw.choice((-128, 0, 5, 127)), draw.values(v.out_channels)
    for build, prepare in ((PackedTernary, quantised), (AddedTernary, planes)):
        kernel: TernaryKernel = build(blocks, counts)
        images, _ = prepare(x, 0.05, zero, v.padding)
        kernel.product(images, v, bias, 0.05, v.padding)


def k_tanh_of_values(draw: Draw) -> None:
    """K-TanH and its gradient, of either dtype."""
    shape = draw.choice(((draw.size(0, 300),), (draw.size(1, 9), draw.size(1, 40))))
    x = draw.values(*shape).to(draw.choice((torch.float32, torch.bfloat16)))
    y = k_tanh(x.requires_grad_(), engine="native")
    y.backward(torch.ones_like(y))


def ceilings(draw: Draw) -> None:
    """The loops that measure a machine's ceilings."""
    library_, threads = load(), draw.threads
    sums = draw.values(threads)
    library_.elision_multiply_adds(draw.size(1, 50), 0.5, threads, sums.data_ptr())
    count = draw.size(1, 400)
    a, b, c = (draw.values(count) for _ in range(3))
    pointers = (a.data_ptr(), b.data_ptr(), c.data_ptr())
    library_.elision_triad(*pointers, 0.5, count, threads)
    check_near(draw, a, b + 0.5 * c)
    order = torch.randperm(count)
    places = torch.empty_like(order)
    places[order] = order.roll(-1)
    library_.elision_chase(places.data_ptr(), draw.size(1, 99))
