"""EfficientNet: Tan and Le, "EfficientNet: Rethinking Model Scaling", ICML 2019.

MBConv blocks (inverted residuals with squeeze-and-excitation under swish), scaled
together in width, depth and resolution. ``efficientnet-b0`` with the two factors of
:data:`COMPOUND` is B1 to B7. Parameter names are torchvision's, so its ImageNet weights
load into the network here.
"""

import torch
from torch import nn

from elision.common.checks import number
from elision.workloads.models.base import Pooled, check_positive, initialise
from elision.workloads.models.small_blocks import (
    SqueezeExcite,
    channels_of,
    check_scaling,
    convolution,
    repeats,
    strides,
)

__all__ = ["COMPOUND", "EfficientNet", "MBConv", "efficientnet"]

#: Widening, kernel, first stride, channels and blocks of each stage (table 1).
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)

#: Channels before the first stage and after the last.
STEM, HEAD = 32, 1280

#: Squeeze-and-excitation has a fourth of the block's input channels between its layers.
_SQUEEZE = 4

#: Width, depth and side of the images of the published networks.
COMPOUND = {
    "b0": (1.0, 1.0, 224),
    "b1": (1.0, 1.1, 240),
    "b2": (1.1, 1.2, 260),
    "b3": (1.2, 1.4, 300),
    "b4": (1.4, 1.8, 380),
    "b5": (1.6, 2.2, 456),
    "b6": (1.8, 2.6, 528),
    "b7": (2.0, 3.1, 600),
}


class MBConv(nn.Module):
    """1x1 widening, depthwise, squeeze-and-excitation, linear 1x1; around it a shortcut.

    Args:
        inputs, outputs: channels of the images.
        kernel, stride: of the depthwise convolution.
        widening: channels between over ``inputs``; 1: no first convolution.
        dropped: probability that an example skips the block in training, where the block
            has a shortcut (Huang et al., "Deep Networks with Stochastic Depth", ECCV
            2016).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        widening: int,
        dropped: float,
    ) -> None:
        super().__init__()
        between = inputs * widening
        layers: list[nn.Module] = []
        if widening != 1:
            layers.append(convolution(inputs, between, 1, activation=nn.SiLU))
        layers += [
            convolution(
                between, between, kernel, stride, groups=between, activation=nn.SiLU
            ),
            SqueezeExcite(between, max(1, inputs // _SQUEEZE), nn.SiLU, nn.Sigmoid),
            convolution(between, outputs, 1, activation=None),
        ]
        self.block = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs
        self.dropped = dropped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H/stride, W/stride)``."""
        if not self.adds:
            return self.block(x)
        y = self.block(x)
        if self.training and self.dropped:
            stays = 1 - self.dropped
            y = y * torch.bernoulli(torch.full_like(y[:, :1, :1, :1], stays)) / stays
        return x + y


class EfficientNet(Pooled):
    """Stages of MBConv blocks between two convolutions, pooling and a linear layer.

    Args:
        in_channels: channels of the image.
        classes: outputs.
        width: factor of all channels; those of the last convolution only grow (own
            choice, as in MobileNetV2: the published networks are never narrower).
        depth: factor of the blocks of every stage, rounded up.
        kernel: side of all depthwise filters; None: those of the paper.
        stem_stride: of the first convolution; 1 for small images (own choice).
        dropout: share of the last features left out in training.
        stochastic_depth: probability that the last block is skipped; it grows from 0 in
            equal steps.

    Example:
        >>> model = efficientnet(in_channels=3, classes=1000)
        >>> sum(p.numel() for p in model.parameters())
        5288548
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        width: float,
        depth: float,
        kernel: int | None,
        stem_stride: int,
        dropout: float,
        stochastic_depth: float,
    ) -> None:
        super().__init__()
        check_positive("EfficientNet", in_channels=in_channels, classes=classes)
        check_scaling("EfficientNet", width, depth, kernel, stem_stride)
        number("EfficientNet", "stochastic_depth", stochastic_depth, "[0, 1)")
        channels = channels_of(STEM, width)
        layers: list[nn.Module] = [
            convolution(in_channels, channels, 3, stem_stride, activation=nn.SiLU)
        ]
        total = sum(repeats(blocks, depth) for *_, blocks in STAGES)
        done = 0
        for widening, side, first, wanted, blocks in STAGES:
            outputs = channels_of(wanted, width)
            stage: list[nn.Module] = []
            for stride in strides(first, blocks, depth):
                dropped = stochastic_depth * done / total
                stage.append(
                    MBConv(channels, outputs, kernel or side, stride, widening, dropped)
                )
                channels = outputs
                done += 1
            layers.append(nn.Sequential(*stage))
        head = channels_of(HEAD, max(width, 1.0))
        layers.append(convolution(channels, head, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head, classes))
        initialise(self)


def efficientnet(
    *,
    in_channels: int,
    classes: int,
    width: float = 1.0,
    depth: float = 1.0,
    kernel: int | None = None,
    stem_stride: int = 2,
    dropout: float = 0.2,
    stochastic_depth: float = 0.2,
) -> EfficientNet:
    """EfficientNet-B0 for 224x224 images; wider and deeper ones by its two factors."""
    return EfficientNet(
        in_channels=in_channels,
        classes=classes,
        width=width,
        depth=depth,
        kernel=kernel,
        stem_stride=stem_stride,
        dropout=dropout,
        stochastic_depth=stochastic_depth,
    )
