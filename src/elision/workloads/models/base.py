"""What the model families share: their head, their initialisation, how to check a size."""

from typing import Literal

import torch
from torch import nn

from elision.common.checks import count

__all__ = ["MOST_SIZE", "Pooled", "check_positive", "initialise"]


class Pooled(nn.Module):
    """A classifier over the mean of each feature of an image.

    Attributes:
        features: images ``(N, in_channels, H, W)`` to features ``(N, C, P, Q)``.
        classifier: means ``(N, C)`` to scores ``(N, classes)``.

    Example:
        >>> class Means(Pooled):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.features = self.classifier = nn.Identity()
        >>> Means()(torch.ones(1, 2, 3, 3))
        tensor([[1., 1.]])
    """

    features: nn.Module
    classifier: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        return self.classifier(self.features(x).mean((2, 3)))


#: Largest size of a network: layers in the literature are narrower than 2**18.
MOST_SIZE = 2**20


def check_positive(owner: str, **sizes: int) -> None:
    """Raise ValueError unless every named size is an integer in [1, 2**20]."""
    for name, value in sizes.items():
        count(owner, name, value, most=MOST_SIZE)


@torch.no_grad()
def initialise(
    model: nn.Module, *, fan: Literal["fan_in", "fan_out"] = "fan_out"
) -> None:
    """Initialise a network of rectifiers in place, from torch's global generator.

    Convolutions: normal with variance ``2 / fan`` (He et al., "Delving Deep into
    Rectifiers", ICCV 2015, equations 10 and 14: either fan will do; ResNet and WRN code
    uses the fan-out, DenseNet code the fan-in). Batch normalisation: scale 1, shift 0.
    Linear layers: torch's uniform ``±1/sqrt(fan_in)``. Biases: 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
