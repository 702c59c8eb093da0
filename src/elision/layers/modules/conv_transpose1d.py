"""The elided form of ``torch.nn.ConvTranspose1d``."""

from torch import Tensor, nn

from elision.layers.modules.base import ElidedLayer
from elision.layers.modules.convolved import transposed

__all__ = ["ElidedConvTranspose1d"]


class ElidedConvTranspose1d(ElidedLayer, nn.ConvTranspose1d):
    """A ``ConvTranspose1d`` whose products read operands that a recipe transforms.

    Example:
        >>> import torch, elision
        >>> layer = torch.nn.ConvTranspose1d(3, 8, 3)
        >>> layer = elision.elide(layer, elision.methods.Swat(0.5, dense=()))
        >>> type(layer).__name__, layer(torch.ones(1, 3, 6)).shape
        ('ElidedConvTranspose1d', torch.Size([1, 8, 8]))
    """

    def forward(  # noqa: D102
        self, input: Tensor, output_size: list[int] | None = None
    ) -> Tensor:
        return transposed(self, input, output_size)
