"""The elided form of ``torch.nn.Bilinear``.

``y_k = Σ_ij x1_i·W_kij·x2_j + b_k`` is a matrix product with ``x1·x2ᵀ``: a convolution
of an image of ``J`` pixels and ``I`` channels by one window that covers it. That is how a
recipe, an observer and an engine see it; the weight keeps its shape.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from elision.layers.modules.base import ElidedLayer
from elision.products import ConvolutionParameters

__all__ = ["ElidedBilinear"]

#: One window, over the whole image.
_ONCE = ConvolutionParameters((1,), (0,), (1,))


class ElidedBilinear(ElidedLayer, nn.Bilinear):
    """A ``Bilinear`` whose three products read operands that a recipe transforms.

    The input of its products is the outer product of the two inputs,
    ``(rows, in1_features, in2_features)``. Where nothing is changed, torch's layer runs.

    Example:
        >>> import elision
        >>> mix = elision.elide(nn.Bilinear(3, 4, 2), elision.methods.Swat(0.5, dense=()))
        >>> mix(torch.ones(5, 3), torch.ones(5, 4)).shape
        torch.Size([5, 2])
    """

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:  # noqa: D102
        if isinstance(input1, Proxy) or isinstance(input2, Proxy):
            proxy: Any = input1 if isinstance(input1, Proxy) else input2
            name = proxy.tracer.path_of_module(self)
            return proxy.tracer.create_proxy("call_module", name, (input1, input2), {})
        changed = self._elision_observers or self._elision_plan.changes
        if not changed or not (input1.numel() and input2.numel()):
            return super().forward(input1, input2)
        if input1.shape[:-1] != input2.shape[:-1]:
            return super().forward(input1, input2)  # torch says what is wrong
        rows = [x.reshape(-1, x.shape[-1]) for x in (input1, input2)]
        outer = rows[0].unsqueeze(2) * rows[1].unsqueeze(1)
        y = self.run_products(outer, self.weight, self.bias, _ONCE)
        return torch.ops.aten._unsafe_view(y, [*input1.shape[:-1], y.shape[1]])
