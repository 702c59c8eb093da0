"""A multilayer perceptron: matrix products and rectifiers only (own design)."""

import torch
from torch import nn

from elision.workloads.models.base import check_positive, initialise

__all__ = ["Mlp", "mlp"]


class Mlp(nn.Module):
    """Linear layers with rectifiers between them, on the flattened image.

    Args:
        inputs: values of an image, channels x height x width.
        classes: outputs.
        width: outputs of each hidden layer.
        depth: hidden layers.
    """

    def __init__(self, *, inputs: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        check_positive("Mlp", inputs=inputs, classes=classes, width=width, depth=depth)
        layers: list[nn.Module] = [nn.Flatten()]
        for size in [width] * depth:
            layers += [nn.Linear(inputs, size), nn.ReLU()]
            inputs = size
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, C, H, W)``."""
        return self.layers(x)


def mlp(
    *,
    in_channels: int,
    classes: int,
    image_size: tuple[int, int],
    width: int = 256,
    depth: int = 2,
) -> Mlp:
    """Two hidden layers of 256."""
    inputs = in_channels * image_size[0] * image_size[1]
    return Mlp(inputs=inputs, classes=classes, width=width, depth=depth)
