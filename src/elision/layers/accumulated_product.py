"""A product under an accumulator, for a layer that runs and for a graph of torch.compile.

In a graph it is the operator ``elision::accumulated``, whose result has a known shape;
when the graph runs, the operator computes as an eager layer does.
"""

import functools
import json

import torch
from torch import Tensor

from elision.engines.accumulating import compute, random_key
from elision.layers.compiled_product import empty_result, geometry
from elision.layers.recomputation import unseen
from elision.operands import Accumulate
from elision.products import LayerProduct, Product

__all__ = ["in_graph", "number", "product"]


def number(counter: Tensor, *, moves: bool) -> Tensor:
    """The counter's value, of its own memory; the counter then goes on by one.

    Args:
        counter: int64 without axes.
        moves: whether it goes on.
    """
    if torch.compiler.is_compiling():
        return _number(counter, moves)
    with unseen(), torch.no_grad():
        found = counter.clone()
        if moves:
            counter.add_(1)
    return found


# In a graph of plain operators, torch saves the counter instead of its copy for the
# backward pass, and copies it there, after it has moved.
@torch.library.custom_op("elision::number", mutates_args=("counter",))
def _number(counter: Tensor, moves: bool) -> Tensor:
    found = counter.clone()
    if moves:
        counter.add_(1)
    return found


@_number.register_fake
def _(counter: Tensor, moves: bool) -> Tensor:
    del moves
    return torch.empty_like(counter)


def product(
    layer_product: LayerProduct, accumulate: Accumulate, name: str, step: Tensor | None
) -> Tensor:
    """Compute one product.

    Args:
        layer_product: with its operands.
        accumulate: how it sums.
        name: of the layer.
        step: number of the training step, int64 without axes; None where no bits are
            random.

    Raises:
        ValueError: the sum is none of these operands; the message names the layer.
    """
    key = 0
    if step is not None:
        key = random_key(accumulate, name, layer_product.kind, int(step))
    try:
        return compute(layer_product, accumulate, key)
    except ValueError as error:
        place = f"{layer_product.kind.value} of layer {name!r}"
        raise ValueError(f"{place}: {error}") from error


def in_graph(
    first: Tensor,
    second: Tensor,
    kind: Product,
    accumulate: Accumulate,
    name: str,
    step: Tensor | None,
    shapes: tuple[list[int], list[int], list[int]],
) -> Tensor:
    """:func:`product` as a node of a graph.

    Args:
        first: operand named ``kind.operands[0]``.
        second: operand named ``kind.operands[1]``.
        kind: of the product.
        accumulate: how it sums.
        name: of the layer.
        step: as for :func:`product`.
        shapes: of the layer's input and weight; a convolution's parameters in one list,
            empty for a linear layer.
    """
    cell = accumulate.in_graph()
    return _accumulated(first, second, kind.value, cell, name, step, *shapes)


@torch.library.custom_op("elision::accumulated", mutates_args=())
def _accumulated(
    first: Tensor,
    second: Tensor,
    kind: str,
    cell: str,
    name: str,
    step: Tensor | None,
    input: list[int],
    weight: list[int],
    convolution: list[int],
) -> Tensor:
    layer = geometry(input, weight, convolution)
    whole = LayerProduct.unchecked(Product(kind), layer, first, second)
    return product(whole, _cell(cell), name, step).contiguous()


@_accumulated.register_fake
def _(first, second, kind, cell, name, step, input, weight, convolution):
    return empty_result(first, kind, input, weight, convolution)


@functools.lru_cache(maxsize=64)
def _cell(text: str) -> Accumulate:
    return Accumulate(**json.loads(text))
