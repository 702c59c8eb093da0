"""Residual networks: He, Zhang, Ren, Sun, "Deep Residual Learning", CVPR 2016.

Two kinds of the same network. The paper's CIFAR networks (section 4.2) have ``6n + 2``
layers in three stages of 16, 32 and 64 channels and parameter-free shortcuts. The
ImageNet networks have four stages; ResNet-50 strides in the 3x3 convolution of a
bottleneck, not in the first 1x1, which is known as v1.5. With the CIFAR stem (one 3x3
convolution of stride 1, no pooling) the ImageNet networks take small images.

Parameter names are torchvision's, so its ImageNet weights load into the networks here.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from elision.workloads.models.base import check_positive, initialise

__all__ = [
    "ResNet",
    "resnet8",
    "resnet14",
    "resnet18",
    "resnet18_imagenet",
    "resnet20",
    "resnet50",
    "resnet50_imagenet",
]


class PadShortcut(nn.Module):
    """Option A of the paper: subsample the image and pad the channels with zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` to ``(N, C + extra, H/stride, W/stride)``."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Option B of the paper: a strided 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        changes = stride != 1 or inputs != width
        self.downsample = shortcut(inputs, width, stride) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, width, H/stride, W/stride)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, around a shortcut; v1.5 strides."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Any) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        self.downsample = shortcut(inputs, outputs, stride) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, 4·width, H/stride, W/stride)``."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A stem, stages of residual blocks, global average pooling and a linear layer.

    Each stage after the first halves the image and doubles the width.

    Args:
        block: the residual block.
        depths: blocks in each stage.
        in_channels: channels of the image.
        classes: outputs.
        width: channels of the stem and the first stage.
        stem: ``"cifar"`` (3x3, stride 1) or ``"imagenet"`` (7x7, stride 2, pooling).
        shortcut: ``"project"`` (option B) or ``"pad"`` (option A), where sizes change.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        in_channels: int,
        classes: int,
        width: int,
        stem: Literal["cifar", "imagenet"] = "cifar",
        shortcut: Literal["project", "pad"] = "project",
    ) -> None:
        super().__init__()
        check_positive("ResNet", in_channels=in_channels, classes=classes, width=width)
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        make_shortcut = projection if shortcut == "project" else PadShortcut
        channels = width
        self.stages: list[str] = []
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(block(channels, width << i, stride, make_shortcut))
                channels = (width << i) * block.expansion
            self.stages.append(f"layer{i + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean((2, 3)))


def resnet8(*, in_channels: int, classes: int, width: int = 16) -> ResNet:
    """The paper's CIFAR network with one block per stage."""
    return _cifar(1, in_channels, classes, width)


def resnet14(*, in_channels: int, classes: int, width: int = 16) -> ResNet:
    """The paper's CIFAR network with two blocks per stage."""
    return _cifar(2, in_channels, classes, width)


def resnet20(*, in_channels: int, classes: int, width: int = 16) -> ResNet:
    """The paper's CIFAR ResNet-20: 0.27 M parameters (its table 6)."""
    return _cifar(3, in_channels, classes, width)


def resnet18(*, in_channels: int, classes: int, width: int = 64) -> ResNet:
    """ResNet-18 with the CIFAR stem."""
    return ResNet(
        BasicBlock, (2, 2, 2, 2), in_channels=in_channels, classes=classes, width=width
    )


def resnet18_imagenet(*, in_channels: int, classes: int, width: int = 64) -> ResNet:
    """ResNet-18 for 224x224 images."""
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        in_channels=in_channels,
        classes=classes,
        width=width,
        stem="imagenet",
    )


def resnet50(*, in_channels: int, classes: int, width: int = 64) -> ResNet:
    """ResNet-50 v1.5 with the CIFAR stem."""
    return ResNet(
        Bottleneck, (3, 4, 6, 3), in_channels=in_channels, classes=classes, width=width
    )


def resnet50_imagenet(*, in_channels: int, classes: int, width: int = 64) -> ResNet:
    """ResNet-50 v1.5 for 224x224 images."""
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        in_channels=in_channels,
        classes=classes,
        width=width,
        stem="imagenet",
    )


def _cifar(blocks: int, in_channels: int, classes: int, width: int) -> ResNet:
    return ResNet(
        BasicBlock,
        (blocks,) * 3,
        in_channels=in_channels,
        classes=classes,
        width=width,
        shortcut="pad",
    )
