"""What the elided convolutions share: the call that a plain layer makes, as products.

Padding that torch's convolutions cannot do themselves (another mode than zeros, more on
one side than on the other) is done in front of the products, as plain layers do it.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from elision.layers.modules.base import ElidedLayer
from elision.products import ConvolutionParameters

__all__ = ["convolved", "transposed"]


def convolved(
    layer: Any, plain: type[nn.Module], input: Any, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """The ``_conv_forward`` of an elided convolution.

    Args:
        layer: the elided layer.
        plain: its plain type.
        input: ``(N, C, *sizes)``, or ``(C, *sizes)``.
        weight: ``(K, C/groups, *kernel)``.
        bias: (K,), or None.
    """
    # A forward of somebody else's is more than this product.
    if isinstance(input, Proxy) and type(layer).forward is plain.forward:
        return layer._elision_traced(input)
    unbatched = input.dim() == weight.dim() - 1
    x: Any = input.unsqueeze(0) if unbatched else input
    padding = _zeros_on_both_sides(layer)
    if padding is None:
        mode = layer.padding_mode.replace("zeros", "constant")
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * len(layer.stride)
    how = ConvolutionParameters(layer.stride, padding, layer.dilation, layer.groups)
    y = layer.run_products(x, weight, bias, how)
    return y.squeeze(0) if unbatched else y


def _zeros_on_both_sides(layer: Any) -> tuple[int, ...] | None:
    """Zero padding that a convolution can do itself, first axis first; or None."""
    pads = layer._reversed_padding_repeated_twice[::-1]
    after, before = tuple(pads[0::2]), tuple(pads[1::2])
    return before if layer.padding_mode == "zeros" and before == after else None


def transposed(layer: Any, input: Any, output_size: list[int] | None) -> Tensor:
    """The forward of an elided transposed convolution.

    Torch takes an output padding of the stride or more where the dilation is larger.
    Then no convolution has this output as its input; the products that a recipe changes
    are those of the whole output, of which the padding cuts a part off.

    Args:
        layer: the elided layer.
        input: ``(N, C, *sizes)``, or ``(C, *sizes)``.
        output_size: sizes of the output, of all its axes or of the last; None: the least.
    """
    if isinstance(input, Proxy):
        own = {} if output_size is None else {"output_size": output_size}
        return layer._elision_traced(input, **own)
    rank = len(layer.stride)
    extra = tuple(
        layer._output_padding(
            input,
            output_size,
            layer.stride,
            layer.padding,
            layer.kernel_size,
            rank,
            layer.dilation,
        )
    )
    unbatched = input.dim() == rank + 1
    x = input.unsqueeze(0) if unbatched else input
    how = ConvolutionParameters(
        layer.stride, layer.padding, layer.dilation, layer.groups, True, extra
    )
    beyond = any(e >= s for e, s in zip(extra, layer.stride, strict=True))
    if beyond and (layer._elision_observers or layer._elision_plan.changes):
        y = _cut(layer, x, how)
    else:
        y = layer.run_products(x, layer.weight, layer.bias, how)
    return y.squeeze(0) if unbatched else y


def _cut(layer: ElidedLayer, x: Tensor, how: ConvolutionParameters) -> Tensor:
    """The output as a part of the whole one, with zeros where that ends."""
    reach = zip(how.dilation, how.extra, strict=True)
    for axis, (d, e) in enumerate(reach):
        if e >= max(how.stride[axis], d):
            raise ValueError(
                f"{layer._where}: output padding {how.extra} must be less than the stride "
                f"{how.stride} or the dilation {how.dilation}"
            )
    whole = how._replace(padding=(0,) * len(how.stride), output_padding=())
    weight: Any = layer.weight
    y = layer.run_products(x, weight, None, whole)
    sides = [
        side
        for p, e in zip(how.padding[::-1], how.extra[::-1], strict=True)
        for side in (-p, e - p)
    ]
    bias: Any = layer.bias
    y = F.pad(y, sides)
    return y if bias is None else y + bias.view(-1, *[1] * len(how.stride))
