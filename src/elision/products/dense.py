"""Dense products, written once: what torch computes where nothing is left out."""

from typing import Any

import torch
import torch.nn.functional as F

from elision.products.kinds import Product

__all__ = ["convolution_product", "matrix_product"]

_FORWARD: dict[int, Any] = {2: F.conv2d, 3: F.conv3d}


def matrix_product(
    kind: Product, first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    """``X · Wᵀ``, ``G · W`` or ``Gᵀ · X``, per entry of leading axes if there are any."""
    if kind is Product.FORWARD:
        return first @ second.mT
    return first @ second if kind is Product.INPUT_GRAD else first.mT @ second


def convolution_product(
    kind: Product,
    first: torch.Tensor,
    second: torch.Tensor,
    result_shape: tuple[int, ...],
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> torch.Tensor:
    """One product of a 2-D or 3-D convolution, by the function that autograd calls.

    Args:
        kind: the product.
        first: operand ``kind.operands[0]``.
        second: operand ``kind.operands[1]``.
        result_shape: shape of the result, which strides leave open for ``dX`` and ``dW``.
        stride: step between outputs, one number an axis.
        padding: zeros on each side, one number an axis.
        dilation: step between taps, one number an axis.
        groups: blocks of channels.
    """
    if kind is Product.FORWARD:
        forward = _FORWARD[len(stride)]
        return forward(first, second, None, stride, padding, dilation, groups)
    of_input = kind is Product.INPUT_GRAD
    absent = first.new_empty(1).expand(result_shape)
    input, weight = (absent, second) if of_input else (second, absent)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        first,
        input,
        weight,
        None,
        *(list(stride), list(padding), list(dilation)),
        False,
        [0] * len(stride),
        groups,
        [of_input, not of_input, False],
    )
    return dx if of_input else dw
