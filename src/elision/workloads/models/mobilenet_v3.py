"""MobileNetV3: Howard et al., "Searching for MobileNetV3", ICCV 2019.

MobileNetV2's inverted residuals of two kernel sizes, some with squeeze-and-excitation,
under h-swish ``x·ReLU6(x + 3)/6`` in the deeper half. Parameter names are torchvision's,
so its ImageNet weights load into the networks here.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from elision.common.checks import number
from elision.workloads.models.base import Pooled, check_positive, initialise
from elision.workloads.models.small_blocks import (
    SqueezeExcite,
    channels_of,
    check_scaling,
    convolution,
    repeated,
)

__all__ = ["MobileNetV3", "mobilenet_v3_large", "mobilenet_v3_small"]

#: Channels of the first convolution, and those of the last one over the last block's.
STEM, HEAD = 16, 6

#: Squeeze-and-excitation has a fourth of the channels it weighs between its layers.
_SQUEEZE = 4

#: Constant in the root of batch normalisation (the published code's).
_EPSILON = 0.001


class Row(NamedTuple):
    """A block: kernel, channels between and of the output, what it has, stride."""

    kernel: int
    between: int
    outputs: int
    excites: bool
    hard: bool
    stride: int


#: Table 1 of the paper.
LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)

#: Table 2 of the paper.
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class Bottleneck(nn.Module):
    """1x1 widening, depthwise, squeeze-and-excitation, 1x1 without a rectifier; a shortcut.

    Args:
        inputs: channels of the images.
        row: kernel, stride and kinds; its channels are those of the block.
        norm: makes a batch normalisation.
    """

    def __init__(self, inputs: int, row: Row, norm: partial[nn.BatchNorm2d]) -> None:
        super().__init__()
        activation = nn.Hardswish if row.hard else nn.ReLU
        layers: list[nn.Module] = []
        if row.between != inputs:
            layers.append(
                convolution(inputs, row.between, 1, activation=activation, norm=norm)
            )
        layers.append(
            convolution(
                row.between,
                row.between,
                row.kernel,
                row.stride,
                groups=row.between,
                activation=activation,
                norm=norm,
            )
        )
        if row.excites:
            squeezed = channels_of(row.between // _SQUEEZE, 1.0)
            layers.append(SqueezeExcite(row.between, squeezed, nn.ReLU, nn.Hardsigmoid))
        layers.append(
            convolution(row.between, row.outputs, 1, activation=None, norm=norm)
        )
        self.block = nn.Sequential(*layers)
        self.adds = row.stride == 1 and inputs == row.outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H/stride, W/stride)``."""
        return x + self.block(x) if self.adds else self.block(x)


class MobileNetV3(Pooled):
    """Bottlenecks between two convolutions, pooling and two linear layers.

    Args:
        rows: the blocks.
        features: outputs of the first linear layer.
        in_channels: channels of the image.
        classes: outputs.
        width: factor of all channels.
        depth: factor of the blocks of every stage, rounded up (EfficientNet's rule).
        kernel: side of all depthwise filters; None: those of the paper.
        stem_stride: of the first convolution; 1 for small images (own choice).
        dropout: share of the last features left out in training.
        norm_momentum: share of a batch in the running averages of batch normalisation;
            0.01 is published. A run of a few hundred steps needs a larger one.

    Example:
        >>> model = mobilenet_v3_small(in_channels=3, classes=1000)
        >>> sum(p.numel() for p in model.parameters())
        2542856
    """

    def __init__(
        self,
        rows: Sequence[Row],
        features: int,
        *,
        in_channels: int,
        classes: int,
        width: float,
        depth: float,
        kernel: int | None,
        stem_stride: int,
        dropout: float,
        norm_momentum: float,
    ) -> None:
        super().__init__()
        check_positive("MobileNetV3", in_channels=in_channels, classes=classes)
        check_scaling("MobileNetV3", width, depth, kernel, stem_stride)
        number("MobileNetV3", "norm_momentum", norm_momentum, "(0, 1]")
        norm = partial(nn.BatchNorm2d, eps=_EPSILON, momentum=norm_momentum)
        channels = channels_of(STEM, width)
        layers: list[nn.Module] = [
            convolution(
                in_channels,
                channels,
                3,
                stem_stride,
                activation=nn.Hardswish,
                norm=norm,
            )
        ]
        for wanted in repeated(rows, depth):
            row = wanted._replace(
                kernel=kernel or wanted.kernel,
                between=channels_of(wanted.between, width),
                outputs=channels_of(wanted.outputs, width),
            )
            layers.append(Bottleneck(channels, row, norm))
            channels = row.outputs
        last = HEAD * channels
        layers.append(
            convolution(channels, last, 1, activation=nn.Hardswish, norm=norm)
        )
        self.features = nn.Sequential(*layers)
        between = channels_of(features, width)
        self.classifier = nn.Sequential(
            nn.Linear(last, between),
            nn.Hardswish(),
            nn.Dropout(dropout),
            nn.Linear(between, classes),
        )
        initialise(self)


def mobilenet_v3_small(
    *,
    in_channels: int,
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    kernel: int | None = None,
    stem_stride: int = 2,
    dropout: float = 0.2,
    norm_momentum: float = 0.01,
) -> MobileNetV3:
    """MobileNetV3-Small for 224x224 images."""
    return MobileNetV3(
        SMALL,
        1024,
        in_channels=in_channels,
        classes=classes,
        width=width,
        depth=depth,
        kernel=kernel,
        stem_stride=stem_stride,
        dropout=dropout,
        norm_momentum=norm_momentum,
    )


def mobilenet_v3_large(
    *,
    in_channels: int,
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    kernel: int | None = None,
    stem_stride: int = 2,
    dropout: float = 0.2,
    norm_momentum: float = 0.01,
) -> MobileNetV3:
    """MobileNetV3-Large for 224x224 images."""
    return MobileNetV3(
        LARGE,
        1280,
        in_channels=in_channels,
        classes=classes,
        width=width,
        depth=depth,
        kernel=kernel,
        stem_stride=stem_stride,
        dropout=dropout,
        norm_momentum=norm_momentum,
    )
