"""The three products computed densely by torch: written once, used everywhere.

These are the calls that a plain layer makes: one ``F.linear`` or convolution with its
bias, one ``convolution_backward`` for all gradients that are wanted. A product with
nothing left out is therefore the plain layer's to the last bit.

``convolution`` is a :class:`ConvolutionParameters`, or None for a matrix product.
Convolutions, transposed ones among them, have one to three axes; a transposed one over
none is a matrix product whose weight is ``(inner, columns)``. Matrix products may have
a leading batch axis, on all operands alike.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.products.kinds import Product
from elision.products.parameters import ConvolutionParameters

__all__ = ["forward", "gradients", "product"]

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

#: Torch's functions by the axes of a weight.
_CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    convolution: ConvolutionParameters | None,
) -> Tensor:
    """``Y`` of a layer, bias added.

    Args:
        x: input, ``(N, C, *sizes)`` or ``(rows, inner)``.
        weight: ``(K, C/groups, *kernel)``, transposed ``(C, K/groups, *kernel)``, or
            ``(columns, inner)``.
        bias: one value per output channel, or None; not for a batch of matrix products.
        convolution: parameters, or None; see the module.
    """
    if convolution is None:
        return F.linear(x, weight, bias) if weight.dim() == 2 else x @ weight.mT
    stride, padding, dilation, groups, transposed, _ = convolution
    if not stride:
        return x @ weight if bias is None else torch.addmm(bias, x, weight)
    if not transposed:
        convolve = _CONVOLVE[weight.dim()]
        return convolve(x, weight, bias, stride, padding, dilation, groups)
    convolve = _TRANSPOSED[weight.dim()]
    extra = convolution.extra
    return convolve(x, weight, bias, stride, padding, extra, groups, dilation)


def gradients(
    grad_output: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    convolution: ConvolutionParameters | None,
    *,
    shapes: tuple[Sequence[int], Sequence[int]],
    bias: bool = False,
) -> Gradients:
    """``dX``, ``dW`` and ``db`` from one output gradient, those that are wanted.

    Args:
        grad_output: ``(N, K, *sizes)`` or ``(rows, columns)``.
        x: input, for ``dW``; None leaves ``dW`` out.
        weight: for ``dX``; None leaves ``dX`` out.
        convolution: parameters, or None; see the module.
        shapes: of the input and of the weight, which a convolution's backward needs
            even of an operand that it does not read.
        bias: whether to compute ``db``.

    Returns:
        The three gradients, None for each one left out.
    """
    wanted = (weight is not None, x is not None, bias)
    if not any(wanted):
        return None, None, None
    if convolution is None:
        # The gradient of a complex product is one with the conjugate.
        dx = None if weight is None else grad_output @ weight.conj()
        dw = None if x is None else grad_output.mT @ x.conj()
        return dx, dw, grad_output.sum(0) if bias else None
    if not convolution.stride:
        dx = None if weight is None else grad_output @ weight.mT.conj()
        dw = None if x is None else x.mT.conj() @ grad_output
        return dx, dw, grad_output.sum(0) if bias else None
    if x is None:
        x = grad_output.new_empty(1).expand(shapes[0])
    if weight is None:
        weight = grad_output.new_empty(1).expand(shapes[1])
    sizes = [grad_output.shape[1]] if bias else None
    stride, padding, dilation, groups, transposed, _ = convolution
    dx, dw, db = torch.ops.aten.convolution_backward(
        grad_output,
        x,
        weight,
        sizes,
        stride,
        padding,
        dilation,
        transposed,
        convolution.extra,
        groups,
        wanted,
    )
    # Torch may compute dW with db, wanted or not.
    return dx if wanted[0] else None, dw if wanted[1] else None, db


def product(
    kind: Product,
    first: Tensor,
    second: Tensor,
    convolution: ConvolutionParameters | None,
    shapes: tuple[Sequence[int], Sequence[int]],
) -> Tensor:
    """One product of a layer.

    Args:
        kind: which of the three.
        first: operand named ``kind.operands[0]``, torch layout.
        second: operand named ``kind.operands[1]``, torch layout.
        convolution: parameters, or None; see the module.
        shapes: of the input and of the weight.

    Returns:
        ``Y``, ``dX`` or ``dW`` in torch layout and the operands' dtype.
    """
    if kind is Product.FORWARD:
        return forward(first, second, None, convolution)
    if kind is Product.INPUT_GRAD:
        result, _, _ = gradients(first, None, second, convolution, shapes=shapes)
    else:
        _, result, _ = gradients(first, second, None, convolution, shapes=shapes)
    assert result is not None
    return result
