"""The elided form of ``torch.nn.Linear``."""

from torch import Tensor, nn

from elision.layers.modules.base import ElidedLayer

__all__ = ["ElidedLinear"]


class ElidedLinear(ElidedLayer, nn.Linear):
    """A ``Linear`` whose three products read what a recipe says.

    Leading axes are flattened: the rows of the matrix product are the examples.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        y = self._run(
            input.reshape(-1, input.shape[-1]), self.weight, self.bias, convolution=None
        )
        return y.view(*input.shape[:-1], y.shape[-1])
