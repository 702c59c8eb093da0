"""MobileNetV1: Howard et al., "MobileNets", arXiv 1704.04861, 2017.

A block filters every channel by itself (depthwise) and then mixes the channels by 1x1
filters: ``1/C_out + 1/k²`` of the products of a dense k x k convolution. The paper gives
the last depthwise convolution stride 2 beside an output of unchanged size; it is 1 here,
as in the published code. Rectifiers end at 6, as there.
"""

from torch import nn

from elision.workloads.models.base import Pooled, check_positive, initialise
from elision.workloads.models.small_blocks import (
    channels_of,
    check_scaling,
    convolution,
    strides,
)

__all__ = ["MobileNetV1", "mobilenet_v1"]

#: Channels, blocks and first stride of each stage (table 1 of the paper).
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))

#: Channels before the first stage.
STEM = 32


def separable(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Depthwise, then 1x1 convolution, each with batch normalisation and a rectifier."""
    return nn.Sequential(
        convolution(inputs, inputs, kernel, stride, groups=inputs),
        convolution(inputs, outputs, 1),
    )


class MobileNetV1(Pooled):
    """A convolution, depthwise-separable blocks, pooling, dropout and a linear layer.

    Args:
        in_channels: channels of the image.
        classes: outputs.
        width: factor of all channels (the paper's alpha).
        depth: factor of the blocks of every stage, rounded up (EfficientNet's rule).
        kernel: side of the depthwise filters.
        stem_stride: of the first convolution; 1 for small images (own choice).
        dropout: share of the last features left out in training.

    Example:
        >>> model = mobilenet_v1(in_channels=3, classes=1000)
        >>> sum(p.numel() for p in model.parameters())
        4231976
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
        check_positive("MobileNetV1", in_channels=in_channels, classes=classes)
        check_scaling("MobileNetV1", width, depth, kernel, stem_stride)
        channels = channels_of(STEM, width)
        layers: list[nn.Module] = [convolution(in_channels, channels, 3, stem_stride)]
        for wanted, blocks, first in STAGES:
            outputs = channels_of(wanted, width)
            for stride in strides(first, blocks, depth):
                layers.append(separable(channels, outputs, kernel, stride))
                channels = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(channels, classes)
        )
        initialise(self)


def mobilenet_v1(
    *,
    in_channels: int,
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    kernel: int = 3,
    stem_stride: int = 2,
    dropout: float = 0.001,
) -> MobileNetV1:
    """MobileNetV1 for 224x224 images."""
    return MobileNetV1(
        in_channels=in_channels,
        classes=classes,
        width=width,
        depth=depth,
        kernel=kernel,
        stem_stride=stem_stride,
        dropout=dropout,
    )
