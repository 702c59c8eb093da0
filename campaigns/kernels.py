"""Native kernels on drawn operands: convolutions, rows of matrices, recurrent layers.

Each function draws the operands of one trial, calls kernels as the library calls them, and
compares with a slow way where there is one; what it is for is that a sanitizer watches.
"""

from dataclasses import replace

import torch
from torch import Tensor

from campaigns.drawn import Draw, check_near
from elision.engines import NativeEngine
from elision.engines.base import Hint
from elision.engines.native import library
from elision.engines.native.direct import DirectEngine, Post, dense_product, to_blocks
from elision.engines.winograd.native import native_product
from elision.nn.given import Weight, selected_recurrence
from elision.nn.kernel import has_tiles, recurrence
from elision.nn.over_time import Gates, Plain, State
from elision.nn.sparse import Mask, sparse_recurrence
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

__all__ = [
    "bf16_recurrent",
    "direct",
    "recurrent",
    "rows",
    "sparse_convolution",
    "sparse_recurrent",
    "winograd",
]


def sparse_convolution(draw: Draw) -> None:
    """A convolution that leaves out zeros of its weight, its input or its gradient."""
    if draw.chance(0.2):
        return _by_engine(draw)
    v = draw.convolution()
    x, w, g = (draw.values(*v.shape_of(n)) for n in ("input", "weight", "grad_output"))
    halves = library.multiplies_halves() and draw.chance(0.3)
    above = draw.choice((0.0, -1.0, 0.5))
    both = draw.chance(0.5)
    (xb, _), (gb, _) = library.to_blocked(x), library.to_blocked(g)
    weights = library.Weights(v, halves=halves)
    weights.compress(w, above, input_grad=both)
    y = library.from_blocked(weights.forward(xb), v.batch)
    kept = torch.where(w.abs() > above, w, 0)
    if not halves:
        _compare(draw, y, LayerProduct(Product.FORWARD, v, x, kept))
    if both:
        dx = library.from_blocked(weights.input_grad(gb), v.batch)
        if not halves:
            _compare(draw, dx, LayerProduct(Product.INPUT_GRAD, v, g, kept))
    weights.release()
    weights.follow(w)
    weights.refresh(w)
    weights.forward(xb)
    weights.input_grad(gb)
    weights.masked_grad(xb, gb)
    dx = library.from_blocked(library.sparse_input_grad(v, gb, w), v.batch)
    _compare(draw, dx, LayerProduct(Product.INPUT_GRAD, v, g, w))
    for sparse in ("input", "grad_output"):
        dw, _ = library.weight_grad(v, xb, gb, sparse=sparse)
        _compare(draw, dw, LayerProduct(Product.WEIGHT_GRAD, v, g, x))
    return None


def _by_engine(draw: Draw) -> None:
    """The same kernels as the engine calls them, in groups."""
    v = Conv2dGeometry(
        *(draw.size(1, 20), 64, draw.size(2, 5), draw.size(2, 5), 64),
        *(draw.size(1, 2), draw.size(1, 2), draw.size(0, 1)),
        groups=2,
    )
    kind = draw.choice(tuple(Product))
    operands = [draw.values(*v.shape_of(name)) for name in kind.operands]
    product = LayerProduct(kind, v, operands[0], operands[1])
    y = NativeEngine().compute(product, Hint(draw.choice(kind.operands)))
    _compare(draw, y, product)


def _compare(draw: Draw, found: Tensor, product: LayerProduct, loses: int = 1) -> None:
    """Compare with torch's product; ``loses``: times the rounding of plain sums."""
    if draw.is_plain:
        operands = [x.double() for x in product.operands.values()]
        exact = replace(product, first=operands[0], second=operands[1]).compute()
        terms = product.geometry.dense_macs // exact.numel()
        check_near(draw, found, exact, loses**2 * terms)


def rows(draw: Draw) -> None:
    """A matrix product's weight gradient, of rows that may lie apart."""
    tokens = draw.size(1, 300)
    x, g = (
        draw.values(tokens, columns + draw.size(0, 3))[:, :columns]
        for columns in (draw.size(1, 150), draw.size(1, 300))
    )
    for sparse in ("input", "grad_output"):
        dw = library.rows_weight_grad(x, g, sparse=sparse)
        if dw is not None:
            check_near(draw, dw, g.double().T @ x.double(), tokens)


def direct(draw: Draw) -> None:
    """A dense product by the batch-reduce kernel, of either dtype and in any layout."""
    side = draw.choice((1, 1, 8))
    v = replace(draw.convolution(80, side), batch=draw.size(1, 5))
    kind = draw.choice(tuple(Product))
    blocks = (side, side) if side > 1 and draw.chance(0.5) else None
    dtype = draw.choice((torch.float32, torch.bfloat16)) if not blocks else None
    post = _post(draw, v.out_channels) if kind is Product.FORWARD else None
    operands = [draw.values(*v.shape_of(name)) for name in kind.operands]
    given = [draw.placed(x.to(dtype or torch.float32)) for x in operands]
    if blocks:
        named = zip(kind.operands, given, strict=True)
        given = [x if n == "weight" else to_blocks(x, side) for n, x in named]
    elif draw.chance(0.5):
        last = [x.permute(0, 2, 3, 1) for x in given]
        given = [draw.placed(x).permute(0, 3, 1, 2) for x in last]
    y = dense_product(kind, v, given[0], given[1], post=post, blocks=blocks)
    if post is None and blocks is None and dtype is torch.float32:
        _compare(draw, y, LayerProduct(kind, v, operands[0], operands[1]))
    matrix = MatmulGeometry(draw.size(1, 70), draw.size(1, 70), draw.size(1, 300))
    operands = [draw.values(*matrix.shape_of(name)) for name in kind.operands]
    DirectEngine().compute(LayerProduct(kind, matrix, operands[0], operands[1]))


def _post(draw: Draw, channels: int) -> Post | None:
    if draw.chance(0.4):
        return None
    scale, shift = (
        draw.values(channels) if draw.chance(0.5) else None for _ in range(2)
    )
    return Post(scale, shift, draw.chance(0.5))


def winograd(draw: Draw) -> None:
    """A 3x3 convolution by Winograd's kernel, or the gradient of its input."""
    inner, outer = (16 * draw.size(1, 5) for _ in range(2))
    height, width = (draw.size(3, 19) for _ in range(2))
    padding = (draw.size(0, 2), draw.size(0, 2))
    v = Conv2dGeometry(draw.size(1, 5), inner, height, width, outer, 3, padding=padding)
    kind = draw.choice((Product.FORWARD, Product.INPUT_GRAD))
    first, second = (draw.values(*v.shape_of(name)) for name in kind.operands)
    post = _post(draw, outer) if kind is Product.FORWARD else None
    m = draw.choice((2, 4))
    y = native_product(LayerProduct(kind, v, first, second), m, post)
    if post is None:  # F(4, 3) loses some two decimals
        _compare(draw, y, LayerProduct(kind, v, first, second), loses=100)


def _layer(
    draw: Draw, dtype: torch.dtype = torch.float32, steps: int = 6
) -> tuple[str, Tensor, list[int], State, Plain, bool]:
    """A layer in one direction: cell, data, counts, state, weights, whether reverse."""
    cell = draw.choice(("lstm", "gru"))
    inputs, units = draw.size(1, 70), draw.size(1, 70)
    counts = sorted(
        (draw.size(1, 70) for _ in range(draw.size(1, steps))),
        reverse=True,
    )
    rows = units * {"lstm": 4, "gru": 3}[cell]

    def drawn(*shape: int) -> Tensor:
        x = draw.values(*shape, dtype=dtype)
        return x.requires_grad_(draw.chance(0.8))

    state = tuple(drawn(counts[0], units) for _ in range(1 + (cell == "lstm")))
    biases = (drawn(rows), drawn(rows)) if draw.chance(0.7) else (None, None)
    weights = Plain(drawn(rows, inputs), drawn(rows, units), *biases)
    data = drawn(sum(counts), inputs)
    return cell, data, counts, state, weights, draw.chance(0.5)


def _backward(draw: Draw, y: Tensor, last: State) -> None:
    """Gradients of the outputs, of the last states or of both."""
    wanted = [y, *last] if draw.chance(0.5) else [draw.choice((y, *last))]
    if wanted[0].requires_grad:
        torch.autograd.backward(wanted, [torch.randn_like(part) for part in wanted])


def recurrent(draw: Draw) -> None:
    """A layer in one direction by the dense kernel, and its gradients."""
    cell, data, counts, state, weights, reverse = _layer(draw)
    y, last = recurrence(cell, data, counts, state, weights, reverse=reverse)
    exact, _ = Gates().run(cell)(data, counts, state, weights, reverse)
    check_near(draw, y.detach(), exact.detach(), sum(weights.input.shape) ** 2)
    _backward(draw, y, last)


def bf16_recurrent(draw: Draw) -> None:
    """The same of bfloat16, by tiles or their emulation, which is slow: of few steps."""
    if not has_tiles():
        raise RuntimeError("built without tiles and without their emulation")
    cell, data, counts, state, weights, reverse = _layer(draw, torch.bfloat16, 2)
    y, last = recurrence(cell, data, counts, state, weights, reverse=reverse)
    _backward(draw, y, last)


def sparse_recurrent(draw: Draw) -> None:
    """A layer of masked weights, and one whose products read what is selected."""
    cell, data, counts, state, weights, reverse = _layer(draw)
    if draw.chance(0.5):
        masks = (Mask(weights.input != 0), Mask(weights.hidden != 0))
        y, last = sparse_recurrence(
            cell, data, counts, state, weights, masks, reverse=reverse
        )
        exact, _ = Gates().run(cell)(data, counts, state, weights, reverse)
        check_near(draw, y.detach(), exact.detach(), sum(weights.input.shape) ** 2)
        return _backward(draw, y, last)
    read = [
        Weight(w.detach(), lambda h, sizes: h, lambda g, h: g.T @ h)
        for w in (weights.input, weights.hidden)
    ]
    of_input: Weight | None = read[0]
    if draw.chance(0.5):
        of_input, data = None, weights.of_input(data).detach()
    y, last = selected_recurrence(
        cell, data, counts, state, weights, of_input, read[1], reverse=reverse
    )
    return _backward(draw, y, last)
