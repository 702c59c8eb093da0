"""SqueezeNet: Iandola et al., "SqueezeNet", arXiv 1602.07360, 2016.

A fire module narrows its input to few channels by 1x1 filters and widens it by 1x1 and
3x3 filters side by side. There is no batch normalisation, and the scores are the means of
a last convolution's images behind a rectifier. Parameter names are torchvision's, so its
ImageNet weights load into the network here.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from elision.common.checks import one_of
from elision.workloads.models.base import check_positive, initialise
from elision.workloads.models.small_blocks import (
    channels_of,
    check_scaling,
    repeated,
)

__all__ = ["Fire", "SqueezeNet", "squeezenet"]

#: Standard deviation of the last convolution's first weights (the authors' Caffe model).
_LAST_DEVIATION = 0.01


class Row(NamedTuple):
    """A fire module: channels between and of each branch; 2: pooling comes before it."""

    squeezed: int
    outputs: int
    stride: int


class Stem(NamedTuple):
    """The first convolution: its channels, and the side of its filters."""

    channels: int
    kernel: int


#: By version: the stem and the modules. 1.1 is the authors' later one, of 2.4 times
#: fewer products (their repository): a smaller stem, and earlier poolings.
VERSIONS: dict[str, tuple[Stem, tuple[Row, ...]]] = {
    "1.0": (
        Stem(96, 7),
        (
            *(Row(16, 64, 2), Row(16, 64, 1), Row(32, 128, 1)),
            *(Row(32, 128, 2), Row(48, 192, 1), Row(48, 192, 1), Row(64, 256, 1)),
            Row(64, 256, 2),
        ),
    ),
    "1.1": (
        Stem(64, 3),
        (
            *(Row(16, 64, 2), Row(16, 64, 1)),
            *(Row(32, 128, 2), Row(32, 128, 1)),
            *(Row(48, 192, 2), Row(48, 192, 1), Row(64, 256, 1), Row(64, 256, 1)),
        ),
    ),
}


class Fire(nn.Module):
    """1x1 filters to few channels, then 1x1 and wider filters side by side.

    Args:
        inputs: channels of the images.
        squeezed: channels between.
        branch: channels of each branch.
        kernel: side of the wider filters.

    Example:
        >>> sum(p.numel() for p in Fire(96, 16, 64, 3).parameters())
        11920
    """

    def __init__(self, inputs: int, squeezed: int, branch: int, kernel: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, branch, 1)
        self.expand3x3 = nn.Conv2d(squeezed, branch, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, 2·branch, H, W)``."""
        x = F.relu(self.squeeze(x))
        return torch.cat((F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))), 1)


class SqueezeNet(nn.Module):
    """A convolution, fire modules with poolings between, a convolution and a mean.

    Args:
        in_channels: channels of the image.
        classes: outputs.
        version: ``"1.0"``, the paper's, or ``"1.1"``.
        width: factor of all channels, to multiples of 8 (own choice: MobileNetV2's rule).
        depth: factor of the modules of one width, rounded up (EfficientNet's rule).
        kernel: side of the wider filters of a module.
        stem_stride: of the first convolution; 1 for small images (own choice).
        dropout: share of the last features left out in training.
        rectified: whether scores end in a rectifier, as published. Among few classes, one
            whose scores are never positive gets no gradient any more, and is lost.

    Example:
        >>> model = squeezenet(in_channels=3, classes=1000)
        >>> sum(p.numel() for p in model.parameters())
        1248424
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        version: str | float,
        width: float,
        depth: float,
        kernel: int,
        stem_stride: int,
        dropout: float,
        rectified: bool,
    ) -> None:
        super().__init__()
        check_positive("SqueezeNet", in_channels=in_channels, classes=classes)
        check_scaling("SqueezeNet", width, depth, kernel, stem_stride)
        # A command line reads 1.1 as a number.
        one_of("SqueezeNet", "version", str(version), tuple(VERSIONS))
        stem, rows = VERSIONS[str(version)]
        channels = channels_of(stem.channels, width)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, stem.kernel, stem_stride),
            nn.ReLU(),
        ]
        for row in repeated(rows, depth):
            if row.stride == 2:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            branch = channels_of(row.outputs, width)
            layers.append(
                Fire(channels, channels_of(row.squeezed, width), branch, kernel)
            )
            channels = 2 * branch
        self.features = nn.Sequential(*layers)
        last = nn.Conv2d(channels, classes, 1)
        one_of("SqueezeNet", "rectified", rectified, (True, False))
        ending = nn.ReLU() if rectified else nn.Identity()
        self.classifier = nn.Sequential(nn.Dropout(dropout), last, ending)
        initialise(self, fan="fan_in")
        nn.init.normal_(last.weight, std=_LAST_DEVIATION)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        return self.classifier(self.features(x)).mean((2, 3))


def squeezenet(
    *,
    in_channels: int,
    classes: int,
    version: str | float = "1.0",
    width: float = 1.0,
    depth: float = 1.0,
    kernel: int = 3,
    stem_stride: int = 2,
    dropout: float = 0.5,
    rectified: bool = True,
) -> SqueezeNet:
    """SqueezeNet for 224x224 images."""
    return SqueezeNet(
        in_channels=in_channels,
        classes=classes,
        version=version,
        width=width,
        depth=depth,
        kernel=kernel,
        stem_stride=stem_stride,
        dropout=dropout,
        rectified=rectified,
    )
