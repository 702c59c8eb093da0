"""The elided form of ``torch.nn.Conv3d``."""

from torch import Tensor, nn

from elision.layers.modules.base import ElidedLayer
from elision.layers.modules.convolved import convolved

__all__ = ["ElidedConv3d"]


class ElidedConv3d(ElidedLayer, nn.Conv3d):
    """A ``Conv3d`` whose three products read operands that a recipe transforms.

    Example:
        >>> import torch, elision
        >>> layer = elision.elide(torch.nn.Conv3d(3, 8, 3), elision.methods.Swat(0.5, dense=()))
        >>> type(layer).__name__, layer(torch.ones(1, 3, 6, 6, 6)).shape
        ('ElidedConv3d', torch.Size([1, 8, 4, 4, 4]))
    """

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return convolved(self, nn.Conv3d, input, weight, bias)
