"""The elided form of ``torch.nn.ConvTranspose3d``."""

from torch import Tensor, nn

from elision.layers.modules.base import ElidedLayer
from elision.layers.modules.convolved import transposed

__all__ = ["ElidedConvTranspose3d"]


class ElidedConvTranspose3d(ElidedLayer, nn.ConvTranspose3d):
    """A ``ConvTranspose3d`` whose products read operands that a recipe transforms.

    Example:
        >>> import torch, elision
        >>> layer = torch.nn.ConvTranspose3d(3, 8, 3)
        >>> layer = elision.elide(layer, elision.methods.Swat(0.5, dense=()))
        >>> type(layer).__name__, layer(torch.ones(1, 3, 6, 6, 6)).shape
        ('ElidedConvTranspose3d', torch.Size([1, 8, 8, 8, 8]))
    """

    def forward(  # noqa: D102
        self, input: Tensor, output_size: list[int] | None = None
    ) -> Tensor:
        return transposed(self, input, output_size)
