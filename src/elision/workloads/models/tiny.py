"""Networks of the benchmark MLPerf Tiny, with the shapes of its reference code.

Banbury et al., "MLPerf Tiny Benchmark", NeurIPS Datasets and Benchmarks 2021. Biases are
included. For visual wake words, the benchmark has ``mobilenet-v1`` with a width of 0.25 on
images of 96x96. The benchmark's data are not here: a workload trains these networks on
other data, and its scores are not the benchmark's.
"""

import torch
import torch.nn.functional as F
from torch import nn

from elision.workloads.models.base import check_positive, initialise

__all__ = [
    "Autoencoder",
    "DsCnn",
    "TinyResNet8",
    "autoencoder",
    "ds_cnn",
    "tiny_resnet8",
]

#: DS-CNN: side of the first filters and what keeps 49x10 at half its size, rounded up;
#: blocks; share of features left out behind the first convolution and before the last
#: layer.
_FIRST, _AROUND, _BLOCKS, _DROPS = (10, 4), (5, 1), 4, (0.2, 0.4)

#: Autoencoder: values in the middle, and layers on either side of it.
_MIDDLE, _SIDE = 8, 4


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is one of 1x1 where shapes change."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = None if stride == 1 else nn.Conv2d(inputs, width, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, width, H/stride, W/stride)``."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class TinyResNet8(nn.Module):
    """Image classification: three blocks of 16, 32 and 64 channels and a linear layer.

    It differs from ``resnet8``, the paper's CIFAR network, in biases and in shortcuts with
    weights.

    Args:
        in_channels: channels of the image.
        classes: outputs.
        width: channels of the first block.

    Example:
        >>> model = tiny_resnet8(in_channels=3, classes=10)
        >>> sum(p.numel() for p in model.parameters())
        78186
    """

    def __init__(self, *, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        check_positive(
            "TinyResNet8", in_channels=in_channels, classes=classes, width=width
        )
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            _Block(width, width, 1),
            _Block(width, 2 * width, 2),
            _Block(2 * width, 4 * width, 2),
        )
        self.fc = nn.Linear(4 * width, classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


class DsCnn(nn.Module):
    """Keyword spotting: a 10x4 convolution, four depthwise-separable blocks, a linear layer.

    The image is a spectrogram of 49 steps and 10 coefficients; padding is symmetric here,
    so the first convolution's rows lie one step later than under the reference's.

    Args:
        in_channels: channels of the image; 1 for a spectrogram.
        classes: outputs; 12 in the benchmark.
        width: channels.

    Example:
        >>> model = ds_cnn(in_channels=1, classes=12)
        >>> sum(p.numel() for p in model.parameters())
        23756
    """

    def __init__(self, *, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        check_positive("DsCnn", in_channels=in_channels, classes=classes, width=width)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, _FIRST, 2, padding=_AROUND),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(_DROPS[0]),
        ]
        for _ in range(_BLOCKS):
            layers += [
                nn.Conv2d(width, width, 3, padding=1, groups=width),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers, nn.Dropout(_DROPS[1]))
        self.fc = nn.Linear(width, classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        return self.fc(self.features(x).mean((2, 3)))


class Autoencoder(nn.Module):
    """Anomaly detection: linear layers to 8 values and back; what differs is unusual.

    Each layer but the last has batch normalisation and a rectifier.

    Args:
        inputs: values of an example; 640 in the benchmark (5 steps of 128 bands).
        width: outputs of the four layers on either side of the middle.

    Example:
        >>> model = autoencoder(in_channels=1, image_size=(5, 128))
        >>> sum(p.numel() for p in model.parameters())
        267928
    """

    def __init__(self, *, inputs: int, width: int) -> None:
        super().__init__()
        check_positive("Autoencoder", inputs=inputs, width=width)
        layers: list[nn.Module] = [nn.Flatten()]
        entering = inputs
        for size in (*[width] * _SIDE, _MIDDLE, *[width] * _SIDE):
            layers += [nn.Linear(entering, size), nn.BatchNorm1d(size), nn.ReLU()]
            entering = size
        self.layers = nn.Sequential(*layers, nn.Linear(entering, inputs))
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reconstructions ``(N, inputs)`` of examples ``(N, ...)`` of so many values."""
        return self.layers(x)


def tiny_resnet8(*, in_channels: int, classes: int, width: int = 16) -> TinyResNet8:
    """MLPerf Tiny's network for 32x32 images."""
    return TinyResNet8(in_channels=in_channels, classes=classes, width=width)


def ds_cnn(*, in_channels: int, classes: int, width: int = 64) -> DsCnn:
    """MLPerf Tiny's network for keywords in spectrograms of 49x10."""
    return DsCnn(in_channels=in_channels, classes=classes, width=width)


def autoencoder(
    *, in_channels: int, image_size: tuple[int, int], width: int = 128
) -> Autoencoder:
    """MLPerf Tiny's network for anomalies in 640 values of sound."""
    inputs = in_channels * image_size[0] * image_size[1]
    return Autoencoder(inputs=inputs, width=width)
