"""A small plain convolutional network, for tests and first experiments (own design)."""

from torch import nn

from elision.workloads.models.base import Pooled, check_positive, initialise

__all__ = ["Cnn", "cnn"]


class Cnn(Pooled):
    """Three 3x3 convolutions with batch normalisation, the last two of stride 2.

    Args:
        in_channels: channels of the image.
        classes: outputs.
        width: channels of the first convolution; the others have 2 and 4 times that.
    """

    def __init__(self, *, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        check_positive("Cnn", in_channels=in_channels, classes=classes, width=width)
        layers: list[nn.Module] = []
        channels = in_channels
        for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            layers += [
                nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)
        initialise(self)


def cnn(*, in_channels: int, classes: int, width: int = 16) -> Cnn:
    """Three convolutions and a linear layer."""
    return Cnn(in_channels=in_channels, classes=classes, width=width)
