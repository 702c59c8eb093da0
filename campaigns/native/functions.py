"""Calls of the kernels between products: recurrences, norms, pools, layouts, K-TanH."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from campaigns.native.call import Call, Case, Draw, Values
from campaigns.native.products import generator
from elision.engines.native import library
from elision.engines.native.blocked import passes
from elision.functional import k_tanh
from elision.nn.given import Weight, selected_recurrence
from elision.nn.kernel import has_tiles, recurrence
from elision.nn.over_time import Gates, Plain
from elision.nn.sparse import Mask, sparse_recurrence

__all__ = ["FUNCTIONS"]

_EPS = torch.finfo(torch.float32).eps

#: Error of a recurrence over the norm of its result, and what is left of a difference that
#: cancels: the bars of ``tests/nn``, in float32 and in bfloat16.
_BARS = {torch.float32: (1e-5, 4 * _EPS), torch.bfloat16: (2e-2, 2e-2)}


def _recurrence(cell: str, way: str, dtype: torch.dtype = torch.float32) -> Draw:
    def call(drawn: random.Random, large: bool) -> Call | None:
        if dtype == torch.bfloat16 and not has_tiles():
            return None
        source = generator(drawn)
        counts = sorted((drawn.randint(1, 20) for _ in range(3)), reverse=True)
        inputs, units = drawn.randint(1, 40), drawn.randint(1, 40)
        if large:
            counts, inputs, units = [32] * 4, 64, 64
        gates, states = {"lstm": (4, 2), "gru": (3, 1)}[cell]
        shapes = [
            (sum(counts), inputs),
            *[(counts[0], units)] * states,
            *((gates * units, n) for n in (inputs, units)),
            *[(gates * units,)] * 2,
        ]
        values = [torch.randn(shape, generator=source) for shape in shapes]
        weights = slice(1 + states, 3 + states)
        masks = None
        if way != "dense":
            places = [
                torch.rand(w.shape, generator=source) < 0.2 for w in values[weights]
            ]
            values[weights] = [
                w * p for w, p in zip(values[weights], places, strict=True)
            ]
            masks = tuple(map(Mask, places))
        # Half the usual scale of a layer's weights, so that few gates saturate.
        values[1 + states :] = [w / (2 * units**0.5) for w in values[1 + states :]]
        values = [value.to(dtype) for value in values]
        out = torch.randn(sum(counts), units, generator=source)

        def layer(exact: bool, *given: Tensor) -> Values:
            given = tuple(x.detach().requires_grad_() for x in given)
            x, *state = given[: 1 + states]
            plain = Plain(*given[1 + states :])
            if exact:
                if way == "masked" and masks is not None:
                    plain = replace(
                        plain,
                        input=torch.where(masks[0].places, plain.input, 0),
                        hidden=torch.where(masks[1].places, plain.hidden, 0),
                    )
                y, _ = Gates().run(cell)(x, counts, tuple(state), plain, False)
            elif way == "masked" and masks is not None:
                y, _ = sparse_recurrence(
                    cell, x, counts, tuple(state), plain, (masks[0], masks[1])
                )
            elif way == "selected":
                of_input, of_state = (
                    Weight(
                        w.detach(), lambda read, sizes: read, lambda g, read: g.T @ read
                    )
                    for w in (plain.input, plain.hidden)
                )
                y, _ = selected_recurrence(
                    cell, x, counts, tuple(state), plain, of_input, of_state
                )
            else:
                y, _ = recurrence(cell, x, counts, tuple(state), plain)
            back = torch.autograd.grad(y, given, out.to(y.dtype))
            if masks is not None and way == "masked":  # the gradient at the mask alone
                kept = [
                    torch.where(mask.places, g, 0)
                    for mask, g in zip(masks, back[weights], strict=True)
                ]
                back = (*back[: 1 + states], *kept, *back[3 + states :])
            return (y.detach(), *back)

        relative, least = _BARS[dtype]

        def error(*given: Tensor) -> Values:
            return tuple(
                _filled(y, relative * y.norm().item() + least)
                for y in layer(True, *given)
            )

        def size(*given: Tensor) -> Values:
            x, first = given[0].abs().max().item(), given[1].abs().max().item()
            w = max(g.abs().max().item() for g in given[1 + states :])
            most = (inputs * x + units * max(1.0, first) + 2) * max(w, 1) * max(x, 1)
            # Back, a gradient is multiplied by the weights once a step.
            most *= max(1.0, gates * units * w) ** len(counts)
            return tuple(_filled(y, most) for y in layer(True, *given))

        return Call(
            values=tuple(values),
            run=lambda *given: layer(False, *given),
            dense=lambda *given: layer(True, *given),
            error=error,
            size=size,
            # A closed gate is 1e-38 in the kernels, not zero; zeros of masks are left out.
            spreads="less",
        )

    return call


def _filled(x: Tensor, value: float) -> Tensor:
    return torch.full(x.shape, value, dtype=torch.float64)


def _images(drawn: random.Random, large: bool) -> Tensor:
    shape = [drawn.randint(1, n) for n in (35, 9, 11, 11)]
    if large:
        shape = [32, 32, 14, 14]
    return torch.randn(shape, generator=generator(drawn))


def _layout(drawn: random.Random, large: bool) -> Call:
    def run(x: Tensor) -> Values:
        blocked, finite = library.to_blocked(x)
        return library.from_blocked(blocked, len(x)), torch.tensor(float(finite))

    def dense(x: Tensor) -> Values:
        return x, torch.tensor(float(x.isfinite().all()))

    return Call(values=(_images(drawn, large),), run=run, dense=dense)


def _norm(drawn: random.Random, large: bool) -> Call:
    x, source = _images(drawn, large), generator(drawn)
    channels, count = x.shape[1], x.numel() // x.shape[1]
    scale, shift = (torch.randn(channels, generator=source) for _ in range(2))
    relu, eps = drawn.random() < 0.5, 1e-5

    def run(x: Tensor, scale: Tensor, shift: Tensor, g: Tensor) -> Values:
        (blocked, _), (grad, _) = library.to_blocked(x), library.to_blocked(g)
        mean, variance = blocked.new_empty(channels), blocked.new_empty(channels)
        inverse, affine = passes.norm_statistics(
            *(blocked, scale, shift, mean, variance), images=len(x), eps=eps, train=True
        )
        y = passes.norm_apply(blocked, affine, None, images=len(x), relu=relu)
        dx, _, dscale, dshift = passes.norm_backward(
            *(grad, None, blocked, y, affine, mean, inverse),
            images=len(x), relu=relu, train=True, residual=False,
        )  # fmt: skip
        y, dx = (library.from_blocked(t, len(x)) for t in (y, dx))
        return y, dx, dscale, dshift

    def dense(x: Tensor, scale: Tensor, shift: Tensor, g: Tensor) -> Values:
        given = tuple(t.detach().requires_grad_() for t in (x, scale, shift))
        y = F.batch_norm(given[0], None, None, *given[1:], training=True, eps=eps)
        y = y.relu() if relu else y
        return (y.detach(), *torch.autograd.grad(y, given, g))

    def sums(x: Tensor, scale: Tensor, shift: Tensor, g: Tensor) -> Values:
        deviation = (x.var((0, 2, 3), correction=0) + eps).rsqrt().max().item()
        far = 1 + x.abs().max().item() * deviation
        slope, up = scale.abs().max().item(), g.abs().max().item()
        return (
            _filled(x, slope * far + shift.abs().max().item()),
            _filled(x, slope * up * deviation * far**2),
            *(_filled(t, count * up * far) for t in (scale, shift)),
        )

    def size(x: Tensor, *others: Tensor) -> Values:
        squares = count * x.abs().max().item() ** 2  # on the way to the variance
        return tuple(s.clamp(min=squares) for s in sums(x, *others))

    def error(*given: Tensor) -> Values:
        # Sums of count terms for the mean, the variance and both gradients. A number below
        # the smallest normal one counts as zero, times all that it is multiplied by.
        lost = torch.finfo(torch.float32).smallest_normal / eps
        for factor in given[1:]:
            lost *= 1 + factor.abs().max().item()
        return tuple(8 * count * (_EPS * s + lost) for s in sums(*given))

    g = torch.randn(x.shape, generator=source)
    return Call(
        values=(x, scale, shift, g),
        run=run,
        dense=dense,
        error=error,
        size=size,
        spreads="nan or inf",
    )


def _pool(drawn: random.Random, large: bool) -> Call:
    x = _images(drawn, large)
    kernel = [drawn.randint(1, min(3, n)) for n in x.shape[2:]]
    stride = [drawn.randint(1, 2) for _ in range(2)]
    padding = [drawn.randint(0, k // 2) for k in kernel]
    window = [*kernel, *stride, *padding, 0]
    shape = passes.pooled_size(*x.shape[2:], window)
    source = generator(drawn)
    # Whole numbers, whose sums are exact in any order.
    g = torch.randint(-8, 9, (*x.shape[:2], *shape), generator=source).float()

    def run(x: Tensor) -> Values:
        (blocked, _), (grad, _) = library.to_blocked(x), library.to_blocked(g)
        y = passes.max_pool_forward(blocked, window)
        dx = passes.max_pool_backward(grad, blocked, window)
        return library.from_blocked(y, len(x)), library.from_blocked(dx, len(x))

    def dense(x: Tensor) -> Values:
        x = x.detach().requires_grad_()
        y = F.max_pool2d(x, kernel, stride, padding)
        return y.detach(), *torch.autograd.grad(y, x, g)

    return Call(values=(x,), run=run, dense=dense)


def _k_tanh(dtype: torch.dtype) -> Draw:
    def call(drawn: random.Random, large: bool) -> Call:
        size, source = drawn.randint(1, 3000), generator(drawn)
        size = 1 << 18 if large else size
        x, g = (torch.randn(size, generator=source).to(dtype) for _ in range(2))

        def by(engine: str) -> Callable[..., Values]:
            def run(x: Tensor, g: Tensor) -> Values:
                x = x.detach().requires_grad_()
                y = k_tanh(x, engine=engine)
                return y.detach(), *torch.autograd.grad(y, x, g)

            return run

        return Call(values=(4 * x, g), run=by("native"), dense=by("torch"))

    return call


def _cases_of(cell: str) -> list[Case]:
    sparse = (f"sparse_{cell}_forward", f"sparse_{cell}_backward")
    dense: Any = (f"{cell}_forward", f"{cell}_backward")
    halves = (f"bf16_{cell}_forward", f"bf16_{cell}_backward", "multiplies_tiles")
    lists = (*sparse, "lists_count", "lists_fill")
    return [
        Case(cell, dense, _recurrence(cell, "dense")),
        Case(f"{cell}, masked weights", sparse, _recurrence(cell, "masked")),
        Case(f"{cell}, selected weights", lists, _recurrence(cell, "selected")),
        Case(f"{cell}, bf16", halves, _recurrence(cell, "dense", torch.bfloat16)),
    ]


FUNCTIONS = (
    Case("layout", ("to_blocked", "from_blocked"), _layout),
    Case(
        "batch normalisation",
        ("norm_statistics", "norm_apply", "norm_backward"),
        _norm,
    ),
    Case("max pooling", ("max_pool_forward", "max_pool_backward"), _pool),
    *(
        Case(f"K-TanH, {name}", ("k_tanh", "k_tanh_backward"), _k_tanh(dtype))
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    ),
    *_cases_of("lstm"),
    *_cases_of("gru"),
)
