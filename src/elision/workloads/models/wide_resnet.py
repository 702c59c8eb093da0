"""Wide residual networks: Zagoruyko, Komodakis, BMVC 2016, arXiv 1605.07146.

WRN-n-k has ``n = 6·b + 4`` layers in three stages of ``16k``, ``32k`` and ``64k``
channels; normalisation and rectifier come before each convolution.
"""

import torch
import torch.nn.functional as F
from torch import nn

from elision.workloads.models.base import check_positive, initialise

__all__ = ["WideResNet", "wrn16_8", "wrn22_2"]


class PreactBlock(nn.Module):
    """B(3,3): two pre-activated 3x3 convolutions, dropout between them."""

    def __init__(self, inputs: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = (
            None
            if inputs == width and stride == 1
            else nn.Conv2d(inputs, width, 1, stride, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, width, H/stride, W/stride)``."""
        active = F.relu(self.bn1(x))
        y = self.dropout(F.relu(self.bn2(self.conv1(active))))
        y = self.conv2(y)
        return y + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-``depth``-``widen``.

    Args:
        depth: layers, ``6·blocks + 4``.
        widen: the factor k on the channels.
        in_channels: channels of the image.
        classes: outputs.
        dropout: probability within a block (the paper's 0.3 where it uses any).

    Raises:
        ValueError: ``depth`` is not ``6·blocks + 4``.
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        *,
        in_channels: int,
        classes: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(
            "WideResNet", widen=widen, in_channels=in_channels, classes=classes
        )
        blocks, remainder = divmod(depth - 4, 6)
        if blocks < 1 or remainder:
            raise ValueError(
                f"WideResNet(depth={depth!r}): must be 10, 16, 22, 28, ..."
            )
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        channels = 16
        stages = []
        for i in range(3):
            width = (16 << i) * widen
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                stages.append(PreactBlock(channels, width, stride, dropout))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = F.relu(self.bn(self.blocks(self.stem(x))))
        return self.fc(x.mean((2, 3)))


def wrn16_8(*, in_channels: int, classes: int, dropout: float = 0.0) -> WideResNet:
    """WRN-16-8: 11.0 M parameters (the paper's table 4)."""
    return WideResNet(16, 8, in_channels=in_channels, classes=classes, dropout=dropout)


def wrn22_2(*, in_channels: int, classes: int, dropout: float = 0.0) -> WideResNet:
    """WRN-22-2, on which RigL reports CIFAR-10."""
    return WideResNet(22, 2, in_channels=in_channels, classes=classes, dropout=dropout)
