"""DenseNet-BC: Huang, Liu, van der Maaten, Weinberger, CVPR 2017, arXiv 1608.06993.

Every layer of a block reads the outputs of all layers before it. Parameter names are
torchvision's; the CIFAR stem is one 3x3 convolution without normalisation or pooling.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from elision.workloads.models.base import check_positive, initialise

__all__ = ["DenseNet", "densenet121", "densenet121_imagenet"]

#: Channels of a layer's 1x1 convolution in multiples of the growth (section 3).
BOTTLENECK = 4
#: Share of the channels that a transition keeps, the paper's theta for DenseNet-BC.
COMPRESSION = 0.5


class DenseLayer(nn.Module):
    """Pre-activated 1x1 and 3x3 convolutions; the output joins the input's channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        middle = BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, middle, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, channels, H, W)`` to ``(N, channels + growth, H, W)``."""
        y = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        return torch.cat([x, y], 1)


class Transition(nn.Module):
    """Compress the channels by a 1x1 convolution, halve the image by averaging."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, channels, H, W)`` to ``(N, outputs, H/2, W/2)``."""
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2, ceil_mode=True)


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between them, and a linear layer.

    Args:
        depths: layers in each block.
        in_channels: channels of the image.
        classes: outputs.
        growth: channels that each layer adds (the paper's k); the stem has twice that.
        stem: ``"cifar"`` (3x3, stride 1) or ``"imagenet"`` (7x7, stride 2, pooling).
    """

    def __init__(
        self,
        depths: Sequence[int],
        *,
        in_channels: int,
        classes: int,
        growth: int,
        stem: Literal["cifar", "imagenet"],
    ) -> None:
        super().__init__()
        check_positive(
            "DenseNet", in_channels=in_channels, classes=classes, growth=growth
        )
        channels = 2 * growth
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if stem == "imagenet":
            parts["conv0"] = nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False)
            parts["norm0"] = nn.BatchNorm2d(channels)
            parts["relu0"] = nn.ReLU()
            parts["pool0"] = nn.MaxPool2d(3, 2, padding=1)
        else:
            parts["conv0"] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        for i, depth in enumerate(depths, start=1):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for j in range(1, depth + 1):
                layers[f"denselayer{j}"] = DenseLayer(channels, growth)
                channels += growth
            parts[f"denseblock{i}"] = nn.Sequential(layers)
            if i < len(depths):
                outputs = int(channels * COMPRESSION)
                parts[f"transition{i}"] = Transition(channels, outputs)
                channels = outputs
        parts[f"norm{len(depths) + 1}"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, classes)
        initialise(self, fan="fan_in")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        return self.classifier(F.relu(self.features(x)).mean((2, 3)))


def densenet121(*, in_channels: int, classes: int, growth: int = 32) -> DenseNet:
    """DenseNet-121 with the CIFAR stem."""
    return DenseNet(
        (6, 12, 24, 16),
        in_channels=in_channels,
        classes=classes,
        growth=growth,
        stem="cifar",
    )


def densenet121_imagenet(
    *, in_channels: int, classes: int, growth: int = 32
) -> DenseNet:
    """DenseNet-121 for 224x224 images."""
    return DenseNet(
        (6, 12, 24, 16),
        in_channels=in_channels,
        classes=classes,
        growth=growth,
        stem="imagenet",
    )
