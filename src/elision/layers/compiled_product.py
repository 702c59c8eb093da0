"""A product of an elided layer as one node of the graph that ``torch.compile`` makes.

Values do not exist while torch.compile traces, so no engine can choose. The graph holds
the operator ``elision::product`` instead, whose result has a known shape; when the graph
runs, the operator calls the layer's engine as an eager layer does. The rest of the model
stays in one graph with it.
"""

import functools

import torch
from torch import Tensor

from elision.engines import AutoEngine, Engine, Hint, NativeEngine
from elision.operands import Transform
from elision.products import (
    ConvolutionParameters,
    Geometry,
    LayerProduct,
    Product,
    geometry_of,
)

__all__ = ["empty_result", "geometry", "numbers_of", "product"]


@functools.cache
def _engine(name: str) -> Engine:
    """An engine without kept lists, as a graph reuses the memory of its tensors."""
    engines = {"native": NativeEngine, "auto": AutoEngine}
    return engines[name](keep=False)


@torch.library.custom_op("elision::product", mutates_args=())
def product(
    first: Tensor,
    second: Tensor,
    kind: str,
    sparse: str | None,
    token: str | None,
    state: list[Tensor],
    input: list[int],
    weight: list[int],
    convolution: list[int],
    engine: str,
) -> Tensor:
    """Compute one product by an engine other than torch's.

    Args:
        first: operand named ``kind.operands[0]``.
        second: operand named ``kind.operands[1]``.
        kind: value of the :class:`~elision.products.Product`.
        sparse: name of the operand that holds many zeros, if one does.
        token: handle of the transform that gives the wanted part of the weight
            gradient; None: all of it.
        state: state tensors of that transform, in order.
        input: shape of the layer's input.
        weight: shape of its weight.
        convolution: parameters in one list, see :func:`numbers_of`; empty for a linear
            layer.
        engine: ``"native"`` or ``"auto"``.
    """
    wanted = None
    if token is not None:
        transform = Transform._by_token[token]
        named = dict(zip(transform.state_names, state, strict=True))
        wanted = transform.wanted_gradient(named)
    layer_product = LayerProduct.unchecked(
        Product(kind), geometry(input, weight, convolution), first, second
    )
    if sparse is not None or wanted is not None:
        hint = Hint(sparse, wanted)
        chosen = _engine(engine).choose(layer_product, hint)
        if chosen.leaves_zeros_out:
            return chosen.compute(layer_product, hint).contiguous()
    return layer_product.compute().contiguous()


def numbers_of(convolution: ConvolutionParameters | None) -> list[int]:
    """Parameters of a convolution in one list; empty for a linear layer."""
    return [] if convolution is None else convolution.numbers


def geometry(input: list[int], weight: list[int], convolution: list[int]) -> Geometry:
    """The layer's geometry; arguments are those of :func:`product`."""
    how = ConvolutionParameters.of_numbers(convolution) if convolution else None
    return geometry_of(tuple(input), tuple(weight), how)


@product.register_fake
def _(first, second, kind, sparse, token, state, input, weight, convolution, engine):
    return empty_result(first, kind, input, weight, convolution)


def empty_result(
    first: Tensor,
    kind: str,
    input: list[int],
    weight: list[int],
    convolution: list[int],
) -> Tensor:
    """An empty tensor of a product's shape; arguments are those of :func:`product`."""
    if kind == Product.INPUT_GRAD.value:
        return first.new_empty(input)
    if kind == Product.WEIGHT_GRAD.value:
        return first.new_empty(weight)
    if not convolution:
        return first.new_empty(input[0], weight[0])
    how = ConvolutionParameters.of_numbers(convolution)
    return first.new_empty(how.output_shape(tuple(input), tuple(weight)))
