"""The elided form of ``torch.nn.Linear``."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from elision.layers.modules.base import ElidedLayer

__all__ = ["ElidedLinear"]


class ElidedLinear(ElidedLayer, nn.Linear):
    """A ``Linear`` whose three products read operands that a recipe transforms.

    Leading axes are flattened: the rows of the matrix product are the examples. So are
    those of a jagged nested tensor, whose rows follow one another.

    Example:
        >>> import torch, elision
        >>> layer = elision.elide(torch.nn.Linear(4, 2), elision.methods.Swat(0.5, dense=()))
        >>> layer(torch.ones(3, 5, 4)).shape
        torch.Size([3, 5, 2])
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        if isinstance(input, Proxy):
            return self._elision_traced(input)
        if input.is_nested:
            return self._of_nested(input)
        if input.dim() == 2:
            return self.run_products(input, self.weight, self.bias)
        rows = input.unsqueeze(0) if input.dim() == 1 else input.flatten(0, -2)
        y = self.run_products(rows, self.weight, self.bias)
        # No view, as of a plain layer: what follows may write it in place.
        return torch.ops.aten._unsafe_view(y, [*input.shape[:-1], y.shape[-1]])

    def _of_nested(self, input: Any) -> Tensor:
        """The output of a nested tensor whose sequences differ in length."""
        if input.layout != torch.jagged or getattr(input, "_ragged_idx", 0) != 1:
            raise ValueError(
                f"{self._where}: of nested tensors an elided layer takes those of layout "
                "torch.jagged, ragged in axis 1"
            )
        return torch.nested.nested_tensor_from_jagged(
            self.forward(input.values()), input.offsets(), input.lengths()
        )
