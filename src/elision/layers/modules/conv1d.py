"""The elided form of ``torch.nn.Conv1d``."""

from torch import Tensor, nn

from elision.layers.modules.base import ElidedLayer
from elision.layers.modules.convolved import convolved

__all__ = ["ElidedConv1d"]


class ElidedConv1d(ElidedLayer, nn.Conv1d):
    """A ``Conv1d`` whose three products read operands that a recipe transforms.

    Example:
        >>> import torch, elision
        >>> layer = elision.elide(torch.nn.Conv1d(3, 8, 3), elision.methods.Swat(0.5, dense=()))
        >>> type(layer).__name__, layer(torch.ones(1, 3, 6)).shape
        ('ElidedConv1d', torch.Size([1, 8, 4]))
    """

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return convolved(self, nn.Conv1d, input, weight, bias)
