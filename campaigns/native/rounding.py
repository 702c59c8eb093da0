"""Calls of the kernels that round, select and quantise: equal to torch to the last bit."""

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from campaigns.native.call import Call, Case, Draw, Values
from campaigns.native.products import convolution, generator
from elision.engines.native import library, ternary, ternary_sums
from elision.engines.native.ternary_kernel import TernaryKernel
from elision.formats import FORMATS, Rounding, native
from elision.formats.ternary_blocks import rows_of, ternary_blocks, weight_of
from elision.operands import TopK
from elision.products import Conv2dGeometry, LayerProduct, Product

__all__ = ["ROUNDING"]

#: Formats of single values, and with scales that values share.
_SINGLE = ("bf16", "fp16", "fp8-e4m3", "fp8-e5m2")
_SHARED = ("mxfp8", "mxint8", "mxfp4", "nvfp4", "dfp16", "int8")

_ROUNDINGS: tuple[Rounding, ...] = ("nearest", "zero", "stochastic")


def _vector(drawn: random.Random, large: bool) -> Tensor:
    size = 1 << 18 if large else drawn.randint(1, 3000)
    return torch.randn(size, generator=generator(drawn))


def _round(names: tuple[str, ...]) -> Draw:
    def call(drawn: random.Random, large: bool) -> Call:
        format, rounding = FORMATS[drawn.choice(names)], drawn.choice(_ROUNDINGS)
        columns, seed = drawn.randint(1, 70), drawn.randrange(1000)
        rows, columns = (256, 1024) if large else (drawn.randint(1, 30), columns)
        x = torch.randn(rows, columns, generator=generator(drawn))

        def run(x: Tensor) -> Values:
            found = native.rounded(x, format, rounding, seed)
            if found is None:
                raise ValueError(f"no kernel for {format.name}, {rounding}")
            return (found,)

        return Call(
            values=(x,),
            run=run,
            dense=lambda x: (format.round(x, rounding, seed),),
        )

    return call


def _narrow(dtype: torch.dtype) -> Draw:
    def call(drawn: random.Random, large: bool) -> Call:
        x = _vector(drawn, large)
        memory = torch.randn(x.shape, generator=generator(drawn))
        most = drawn.choice((math.inf, torch.finfo(dtype).max))

        def run(x: Tensor, memory: Tensor) -> Values:
            sent, left = torch.empty_like(x, dtype=dtype), torch.empty_like(x)
            finite = library.narrow(x, memory, sent, left, most)
            out = torch.empty_like(x)
            library.widen(sent, 4, out)
            return sent, left, torch.tensor(float(finite)), out

        def dense(x: Tensor, memory: Tensor) -> Values:
            total = x + memory
            sent = total.clamp(-most, most).to(dtype)
            finite = torch.tensor(float(total.isfinite().all()))
            return sent, total - sent.float(), finite, sent.float() / 4

        return Call(values=(x, memory), run=run, dense=dense)

    return call


def _level(x: Tensor, count: int) -> Tensor:
    """The k-th largest magnitude; NaN counts as infinite."""
    return (
        x.abs().nan_to_num(torch.inf, torch.inf).sort(descending=True).values[count - 1]
    )


def _threshold(drawn: random.Random, large: bool) -> Call:
    x, keep = _vector(drawn, large), drawn.choice((1e-9, 0.01, 0.1, 0.5, 0.97))

    def dense(x: Tensor) -> Values:
        level = _level(x, max(1, math.ceil(round(keep * x.numel(), 6))))
        below = torch.nextafter(level, torch.zeros(()))
        return (torch.where(level > 0, below, -1.0),)

    return Call(
        values=(x,),
        run=lambda x: (torch.tensor(library.threshold(x, keep)),),
        dense=dense,
    )


def _places(drawn: random.Random, large: bool) -> Call:
    x = _vector(drawn, large)
    count = drawn.randint(1, x.numel())

    def run(x: Tensor) -> Values:
        found = library.largest_places(x, count)
        return dense(x) if found is None else (found.float(),)

    def dense(x: Tensor) -> Values:
        ranked = x.abs().nan_to_num(torch.inf, torch.inf)
        order = ranked.sort(descending=True, stable=True).indices
        return (order[:count].sort().values.float(),)

    return Call(values=(x,), run=run, dense=dense)


def _largest_of_runs(drawn: random.Random, large: bool) -> Call:
    sizes, columns = [drawn.randint(1, 40) for _ in range(4)], drawn.randint(1, 60)
    if large:
        sizes, columns = [64] * 4, 1024
    top, source = TopK(drawn.choice((0.1, 0.5, 0.9))), generator(drawn)
    x = torch.randn(sum(sizes), columns, generator=source)

    def dense(x: Tensor) -> Values:
        runs = []
        for run in x.split(sizes):
            count = max(1, math.ceil(round((1 - top.sparsity) * run.numel(), 6)))
            runs.append(torch.where(run.abs() < _level(run.flatten(), count), 0, run))
        return (torch.cat(runs),)

    return Call(
        values=(x,), run=lambda x: (top.of_runs(x, sizes, [], True),), dense=dense
    )


def _ternary(
    build: Callable[..., TernaryKernel], prepare: Callable[..., tuple[Tensor, bool]]
) -> Draw:
    def call(drawn: random.Random, large: bool) -> Call:
        geometry = Conv2dGeometry(
            *(drawn.randint(1, 5), drawn.randint(1, 40), 5, 6, drawn.randint(1, 40)),
            kernel=drawn.randint(1, 3),
            padding=1,
        )
        geometry = convolution(drawn, large) if large else geometry
        source = generator(drawn)
        weight = torch.randn(geometry.shape_of("weight"), generator=source)
        blocks = ternary_blocks(rows_of(weight), drawn.choice((1, 20, 64)), 2)
        # Scales in eighths, so that float32 holds every sum.
        scales = (8 * blocks.scales).round().clamp(min=1) / 8
        blocks = type(blocks)(blocks.codes, scales, blocks.columns)
        counts = torch.randint(1, 3, scales.shape[1:], generator=source)
        read = weight_of(blocks.decode(counts), weight.shape)
        bias = torch.randint(-9, 10, (geometry.out_channels,), generator=source).float()
        x = torch.randn(geometry.shape_of("input"), generator=source)
        step = 2.0**-4

        def run(x: Tensor) -> Values:
            q, finite = prepare(x, step, 0, geometry.padding)
            y = build([blocks], [counts]).product(
                q, geometry, bias, step, geometry.padding
            )
            return torch.tensor(float(finite)), y

        def dense(x: Tensor) -> Values:
            finite = torch.tensor(float(x.isfinite().all()))
            if not finite:  # the caller's to refuse, whatever the kernel made of it
                return finite, run(x)[1]
            whole = (x / step).round().clamp(-128, 127).double() * step
            y = LayerProduct(Product.FORWARD, geometry, whole, read.double()).compute()
            return finite, y + bias.view(-1, 1, 1)

        return Call(values=(x,), run=run, dense=dense)

    return call


ROUNDING = (
    Case("rounding", ("round",), _round(_SINGLE)),
    Case("rounding to shared scales", ("round_scaled",), _round(_SHARED)),
    *(
        Case(f"narrow and widen, {name}", ("narrow", "widen"), _narrow(dtype))
        for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16))
    ),
    Case("threshold", ("threshold",), _threshold),
    Case("places of the largest", ("threshold", "places_above"), _places),
    Case("largest of runs", ("keep_largest",), _largest_of_runs),
    Case(
        "ternary, packed",
        ("ternary_quantise", "ternary_forward"),
        _ternary(ternary.PackedTernary, ternary.quantised),
    ),
    Case(
        "ternary, sums",
        ("ternary_planes", "ternary_sums"),
        _ternary(ternary_sums.AddedTernary, ternary_sums.planes),
    ),
)
