"""The elided form of ``torch.nn.Conv2d``."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from elision.layers.modules.base import ElidedLayer

__all__ = ["ElidedConv2d"]


class ElidedConv2d(ElidedLayer, nn.Conv2d):
    """A ``Conv2d`` whose three products read operands that a recipe transforms.

    Example:
        >>> import torch, elision
        >>> layer = elision.elide(torch.nn.Conv2d(3, 8, 3), elision.methods.Swat(0.5, dense=()))
        >>> type(layer).__name__, layer(torch.ones(1, 3, 6, 6)).shape
        ('ElidedConv2d', torch.Size([1, 8, 4, 4]))
    """

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        # A forward of somebody else's is more than this product.
        if isinstance(input, Proxy) and type(self).forward is nn.Conv2d.forward:
            return self._elision_traced(input)
        unbatched = input.dim() == 3
        x = input.unsqueeze(0) if unbatched else input
        padding = self._symmetric_padding()
        if padding is None:
            mode = self.padding_mode.replace("zeros", "constant")
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
            padding = (0, 0)
        convolution = (self.stride, padding, self.dilation, self.groups)
        y = self.run_products(x, weight, bias, convolution)
        return y.squeeze(0) if unbatched else y

    def _symmetric_padding(self) -> tuple[int, ...] | None:
        """Zero padding that a convolution can do itself, or None."""
        left, right, top, bottom = self._reversed_padding_repeated_twice
        if self.padding_mode != "zeros" or left != right or top != bottom:
            return None
        return (top, left)
