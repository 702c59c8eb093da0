"""Calls of the kernels that compute products: sparse, dense, Winograd's, in accumulators."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from campaigns.native.call import Call, Case, Draw, Values, summed
from elision.engines import DirectEngine, Hint, NativeEngine
from elision.engines.accumulating import compute
from elision.engines.native import library
from elision.engines.winograd import native_product, transforms
from elision.formats.accumulate import Accumulate
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

__all__ = ["PRODUCTS", "convolution", "generator", "matrix_product"]

#: Fractions of a sparse operand that are kept.
_DENSITIES = (0.0, 0.05, 0.3, 1.0)


def generator(drawn: random.Random) -> torch.Generator:
    """Torch's random numbers, from a drawn seed."""
    return torch.Generator().manual_seed(drawn.getrandbits(32))


def convolution(drawn: random.Random, large: bool) -> Conv2dGeometry:
    """A small convolution, odd sizes and all; or one that is worth timing."""
    if large:
        return Conv2dGeometry(16, 32, 12, 12, 32, kernel=3, padding=1)
    kernel = drawn.randint(1, 4), drawn.randint(1, 4)
    dilation = drawn.randint(1, 2), drawn.randint(1, 2)
    padding = drawn.randint(0, 2), drawn.randint(0, 2)
    height, width = (
        max(drawn.randint(1, 15), d * (k - 1) + 1 - 2 * p)
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    return Conv2dGeometry(
        drawn.randint(1, 20),
        drawn.randint(1, 24),
        height,
        width,
        drawn.randint(1, 24),
        kernel,
        (drawn.randint(1, 3), drawn.randint(1, 3)),
        padding,
        dilation,
    )


def matrix_product(drawn: random.Random, large: bool) -> MatmulGeometry:
    """A small matrix product, or one that is worth timing."""
    if large:
        return MatmulGeometry(128, 256, 128)
    return MatmulGeometry(
        drawn.randint(1, 70), drawn.randint(1, 150), drawn.randint(1, 200)
    )


def _operands(
    kind: Product, geometry: Any, drawn: random.Random, sparse: str | None
) -> Values:
    values = []
    source = generator(drawn)
    for name in kind.operands:
        x = torch.randn(geometry.shape_of(name), generator=source)
        if name == sparse:
            x *= torch.rand(x.shape, generator=source) < drawn.choice(_DENSITIES)
        values.append(x)
    return tuple(values)


def _dense(
    kind: Product, geometry: Any, wanted: Tensor | None = None
) -> Callable[..., Values]:
    def dense(first: Tensor, second: Tensor) -> Values:
        y = LayerProduct(kind, geometry, first, second).compute()
        return (y if wanted is None else torch.where(wanted, y, 0),)

    return dense


def _by_engine(
    engine: Any, kind: Product, geometry: Any, hint: Hint
) -> Callable[..., Values]:
    def run(first: Tensor, second: Tensor) -> Values:
        product = LayerProduct(kind, geometry, first, second)
        return (engine.compute(product, hint),)

    return run


def _native(
    kind: Product,
    sparse: str,
    draw: Callable[[random.Random, bool], Any] = convolution,
    dtype: torch.dtype = torch.float32,
) -> Draw:
    def call(drawn: random.Random, large: bool) -> Call:
        geometry, masked = draw(drawn, large), sparse == "mask"
        values = _operands(kind, geometry, drawn, None if masked else sparse)
        values = tuple(x.to(dtype) for x in values)
        wanted = None
        if masked:
            shape = geometry.shape_of("weight")
            kept = torch.rand(shape, generator=generator(drawn))
            wanted = kept < drawn.choice(_DENSITIES)
        dense = _dense(kind, geometry, wanted)
        hint = Hint(None if masked else sparse, wanted)
        # Sums of halves are halves where the CPU multiplies halves; else they are floats.
        return Call(
            values=values,
            run=_by_engine(NativeEngine(keep=False), kind, geometry, hint),
            dense=dense,
            largest=torch.finfo(dtype).max,
            **summed(dense, values, dtype, flushes=dtype == torch.float32),
        )

    return call


def _halves(drawn: random.Random, large: bool) -> Call | None:
    if not library.multiplies_halves():
        return None
    return _native(Product.FORWARD, "weight", dtype=torch.float16)(drawn, large)


def _direct(kind: Product, dtype: torch.dtype = torch.float32) -> Draw:
    def call(drawn: random.Random, large: bool) -> Call:
        geometry = drawn.choice((convolution, matrix_product))(drawn, large)
        values = tuple(x.to(dtype) for x in _operands(kind, geometry, drawn, None))
        dense = _dense(kind, geometry)
        return Call(
            values=values,
            run=_by_engine(DirectEngine(), kind, geometry, Hint()),
            dense=dense,
            largest=torch.finfo(dtype).max,
            **summed(dense, values, result=dtype, flushes=True),
        )

    return call


def _winograd(kind: Product, m: int) -> Draw:
    def call(drawn: random.Random, large: bool) -> Call:
        geometry = convolution(drawn, large)
        if not large:
            geometry = Conv2dGeometry(
                drawn.randint(1, 3),
                16 * drawn.randint(1, 2),
                drawn.randint(3, 13),
                drawn.randint(3, 13),
                16 * drawn.randint(1, 2),
                3,
                padding=drawn.randint(0, 2),
            )

        def run(first: Tensor, second: Tensor) -> Values:
            return (native_product(LayerProduct(kind, geometry, first, second), m),)

        dense = _dense(kind, geometry)
        shape = LayerProduct(kind, geometry).result_shape
        channels = geometry.in_channels
        if kind is Product.INPUT_GRAD:
            channels = geometry.out_channels
        # Each transform grows a value by at most its largest sum of magnitudes in a row.
        t = transforms(m, 3)
        growth = 1.0
        for matrix in t.arrays:
            growth *= float(abs(matrix).sum(1).max()) ** 2

        def size(first: Tensor, second: Tensor) -> Values:
            most = first.abs().max() * second.abs().max()
            return (
                torch.full(shape, growth * channels * most.item(), dtype=torch.float64),
            )

        # Sums of n² terms in each of four transforms, and over the channels.
        terms = channels + 4 * t.products**2
        info = torch.finfo(torch.float32)

        def error(first: Tensor, second: Tensor) -> Values:
            (most,) = size(first, second)
            larger = max(x.abs().max().item() for x in (first, second))
            least = terms * growth * info.smallest_normal * (1 + larger)
            return (terms * info.eps * most + least,)

        return Call(
            values=_operands(kind, geometry, drawn, None),
            run=run,
            dense=dense,
            error=error,
            size=size,
            spreads="more",
        )

    return call


def _accumulated(drawn: random.Random, large: bool) -> Call:
    kind = drawn.choice(list(Product))
    geometry = drawn.choice((convolution, matrix_product))(drawn, large)
    cell = Accumulate("fp16", chunk=drawn.choice((0, 16, 64)))

    def run(first: Tensor, second: Tensor) -> Values:
        return (compute(LayerProduct(kind, geometry, first, second), cell),)

    values, dense = _operands(kind, geometry, drawn, None), _dense(kind, geometry)
    return Call(
        values=values,
        run=run,
        dense=dense,
        largest=torch.finfo(torch.float16).max,
        **summed(dense, values, torch.float16, torch.float32),
    )


def _integers(drawn: random.Random, large: bool) -> Call:
    kind = drawn.choice(list(Product))
    geometry = drawn.choice((convolution, matrix_product))(drawn, large)

    def run(first: Tensor, second: Tensor) -> Values:
        product = LayerProduct(kind, geometry, first, second)
        return (compute(product, Accumulate("int32")),)

    def dense(first: Tensor, second: Tensor) -> Values:
        # Of an operand that is not finite, every sum that reads it is NaN.
        bad = [(~x.isfinite()).double() for x in (first, second)]
        finite = [x.double().nan_to_num(0, 0, 0) for x in (first, second)]
        ones = [torch.ones_like(x) for x in finite]
        parts = ((finite[0], finite[1]), (bad[0], ones[1]), (ones[0], bad[1]))
        y, *reads = (LayerProduct(kind, geometry, *part).compute() for part in parts)
        return (torch.where(reads[0] + reads[1] > 0, torch.nan, y),)

    values = tuple(
        torch.randint(-127, 128, x.shape, generator=generator(drawn)).float()
        for x in _operands(kind, geometry, drawn, None)
    )
    return Call(values=values, run=run, dense=dense, of_floats=False)


_BLOCKED = ("to_blocked", "from_blocked")
_WEIGHTS = ("weights_new", "weights_free", "weights_release")
_LISTS = (*_BLOCKED, *_WEIGHTS, "weights_compress")
_FOLLOWED = (*_BLOCKED, *_WEIGHTS, "weights_follow", "weights_fill")

PRODUCTS = (
    Case(
        "forward of a sparse weight",
        (*_LISTS, "forward"),
        _native(Product.FORWARD, "weight"),
    ),
    Case(
        "input gradient of a sparse weight",
        (*_LISTS, "input_grad"),
        _native(Product.INPUT_GRAD, "weight"),
    ),
    Case(
        "input gradient of a sparse gradient",
        (*_BLOCKED, "sparse_input_grad"),
        _native(Product.INPUT_GRAD, "grad_output"),
    ),
    Case(
        "weight gradient of a sparse input",
        (*_BLOCKED, "weight_grad"),
        _native(Product.WEIGHT_GRAD, "input"),
    ),
    Case(
        "weight gradient of a sparse gradient",
        (*_BLOCKED, "weight_grad"),
        _native(Product.WEIGHT_GRAD, "grad_output"),
    ),
    Case(
        "weight gradient of sparse rows",
        ("rows_weight_grad",),
        _native(Product.WEIGHT_GRAD, "input", matrix_product),
    ),
    Case(
        "weight gradient at a mask",
        (*_FOLLOWED, "masked_grad"),
        _native(Product.WEIGHT_GRAD, "mask"),
    ),
    Case("products of halves", (*_LISTS, "forward", "multiplies_halves"), _halves),
    *(
        Case(f"direct {kind.value}", (f"direct_{kind.value}",), _direct(kind))
        for kind in Product
    ),
    *(
        Case(
            f"direct {kind.value}, bf16",
            (f"direct_{kind.value}", "multiplies_pairs"),
            _direct(kind, torch.bfloat16),
        )
        for kind in Product
    ),
    *(
        Case(f"Winograd {kind.value}, m={m}", ("winograd_forward",), _winograd(kind, m))
        for kind in (Product.FORWARD, Product.INPUT_GRAD)
        for m in (2, 4)
    ),
    Case("sums in halves", ("accumulate",), _accumulated),
    Case(
        "sums of integers",
        ("integer_sums", "integers_scan", "integers_of", "multiplies_bytes"),
        _integers,
    ),
)
