"""MobileNetV2: Sandler et al., "Inverted Residuals and Linear Bottlenecks", CVPR 2018.

A block widens its channels by a 1x1 convolution, filters each of them by a 3x3 depthwise
one and narrows them again by a 1x1 convolution without a rectifier; where input and output
have one shape, the input is added. Parameter names are torchvision's, so its ImageNet
weights load into the network here.
"""

import torch
from torch import nn

from elision.workloads.models.base import Pooled, check_positive, initialise
from elision.workloads.models.small_blocks import (
    channels_of,
    check_scaling,
    convolution,
    strides,
)

__all__ = ["InvertedResidual", "MobileNetV2", "mobilenet_v2"]

#: Widening, channels, blocks and first stride of each stage (table 2 of the paper).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

#: Channels before the first stage and after the last.
STEM, HEAD = 32, 1280


class InvertedResidual(nn.Module):
    """1x1 widening, depthwise, 1x1 without a rectifier; around it a shortcut.

    Args:
        inputs, outputs: channels of the images.
        stride: of the depthwise convolution.
        widening: channels between over ``inputs``; 1: no first convolution.
        kernel: side of the depthwise filters.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, widening: int, kernel: int = 3
    ) -> None:
        super().__init__()
        between = inputs * widening
        layers: list[nn.Module] = []
        if widening != 1:
            layers.append(convolution(inputs, between, 1))
        self.conv = nn.Sequential(
            *layers,
            convolution(between, between, kernel, stride, groups=between),
            nn.Conv2d(between, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H/stride, W/stride)``."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(Pooled):
    """Inverted residuals between two convolutions, pooling, dropout and a linear layer.

    Args:
        in_channels: channels of the image.
        classes: outputs.
        width: factor of all channels; those of the last convolution only grow.
        depth: factor of the blocks of every stage, rounded up (EfficientNet's rule).
        kernel: side of the depthwise filters.
        stem_stride: of the first convolution; 1 for small images (own choice).
        dropout: share of the last features left out in training.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        width: float,
        depth: float,
        kernel: int,
        stem_stride: int,
        dropout: float,
    ) -> None:
        super().__init__()
        check_positive("MobileNetV2", in_channels=in_channels, classes=classes)
        check_scaling("MobileNetV2", width, depth, kernel, stem_stride)
        channels = channels_of(STEM, width)
        layers: list[nn.Module] = [convolution(in_channels, channels, 3, stem_stride)]
        for widening, wanted, blocks, first in STAGES:
            outputs = channels_of(wanted, width)
            for stride in strides(first, blocks, depth):
                layers.append(
                    InvertedResidual(channels, outputs, stride, widening, kernel)
                )
                channels = outputs
        head = channels_of(HEAD, max(width, 1.0))
        self.features = nn.Sequential(*layers, convolution(channels, head, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head, classes))
        initialise(self)


def mobilenet_v2(
    *,
    in_channels: int,
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    kernel: int = 3,
    stem_stride: int = 2,
    dropout: float = 0.2,
) -> MobileNetV2:
    """MobileNetV2 for 224x224 images."""
    return MobileNetV2(
        in_channels=in_channels,
        classes=classes,
        width=width,
        depth=depth,
        kernel=kernel,
        stem_stride=stem_stride,
        dropout=dropout,
    )
