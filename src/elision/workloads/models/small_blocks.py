"""What networks for phones and microcontrollers share: rounding rules and small blocks.

Names of parameters are torchvision's, as in its ``Conv2dNormActivation`` and
``SqueezeExcitation``.
"""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from elision.common.checks import integer, number, one_of

__all__ = [
    "SqueezeExcite",
    "channels_of",
    "check_scaling",
    "convolution",
    "repeated",
    "repeats",
    "strides",
]

#: Channels come in multiples of eight, never below nine tenths of what was asked for.
_MULTIPLE, _LEAST = 8, 0.9

#: Makes an activation or a normalisation.
Maker = Callable[..., nn.Module]


class _Row(Protocol):
    """A row of a network's table: one block."""

    @property
    def outputs(self) -> int: ...

    @property
    def stride(self) -> int: ...

    def _replace(self, **changes: Any) -> Any: ...


R = TypeVar("R", bound=_Row)


def channels_of(channels: int, width: float) -> int:
    """Channels times ``width``, to the nearest multiple of 8, one up if that is too few.

    The rule of the MobileNets and of EfficientNet (Sandler et al., CVPR 2018; Tan and
    Le, ICML 2019).

    Example:
        >>> channels_of(32, 1.0), channels_of(24, 0.5), channels_of(16, 0.1)
        (32, 16, 8)
    """
    wanted = channels * width
    nearest = int(wanted + _MULTIPLE / 2) // _MULTIPLE * _MULTIPLE
    nearest = max(nearest, _MULTIPLE)
    return nearest + _MULTIPLE if nearest < _LEAST * wanted else nearest


def repeats(blocks: int, depth: float) -> int:
    """Blocks of a stage times ``depth``, rounded up (Tan and Le, ICML 2019).

    Example:
        >>> [repeats(n, 1.4) for n in (1, 2, 3)]
        [2, 3, 5]
    """
    return math.ceil(blocks * depth)


def strides(first: int, blocks: int, depth: float) -> list[int]:
    """Stride of each block of a stage that is scaled in depth: only the first one's.

    Example:
        >>> strides(2, blocks=2, depth=1.5)
        [2, 1, 1]
    """
    return [first] + [1] * (repeats(blocks, depth) - 1)


def repeated(rows: Sequence[R], depth: float) -> list[R]:
    """A table's rows with ``depth`` times as many in every stage, rounded up.

    A stage is a run of rows of one number of outputs. It keeps its first rows, and its
    last one is repeated with stride 1: the rule of EfficientNet, for networks whose
    rows differ (own choice).

    Example:
        >>> from typing import NamedTuple
        >>> class Row(NamedTuple):
        ...     outputs: int
        ...     stride: int
        >>> [tuple(row) for row in repeated([Row(8, 2), Row(16, 2), Row(16, 1)], 1.5)]
        [(8, 2), (8, 1), (16, 2), (16, 1), (16, 1)]
    """
    found: list[R] = []
    for _, run in groupby(rows, key=lambda row: row.outputs):
        stage = list(run)
        count = repeats(len(stage), depth)
        found += stage[:count]
        found += [stage[-1]._replace(stride=1)] * (count - len(stage))
    return found


def check_scaling(
    owner: str, width: float, depth: float, kernel: int | None, stem_stride: int
) -> None:
    """Raise ValueError unless a network can be scaled so.

    Args:
        owner: the network, for the message.
        width: factor of the channels, above 0.
        depth: factor of the blocks of a stage, above 0.
        kernel: side of the filters, odd, or None for the published ones.
        stem_stride: of the first convolution, 1 or 2.

    Example:
        >>> check_scaling("MobileNetV1", 0.5, 1.0, 4, 2)
        Traceback (most recent call last):
        ValueError: MobileNetV1(kernel=4): must be odd, so that images keep their size
    """
    number(owner, "width", width, "> 0")
    number(owner, "depth", depth, "> 0")
    if kernel is not None and integer(owner, "kernel", kernel) % 2 == 0:
        raise ValueError(
            f"{owner}(kernel={kernel}): must be odd, so that images keep their size"
        )
    one_of(owner, "stem_stride", stem_stride, (1, 2))


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: Maker | None = nn.ReLU6,
    norm: Maker = nn.BatchNorm2d,
) -> nn.Sequential:
    """Convolution that keeps the image's size at stride 1, normalisation, activation."""
    layers = [
        nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        ),
        norm(outputs),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


class SqueezeExcite(nn.Module):
    """A factor for each channel, computed from the means of all channels.

    ``x · gate(W2 · f(W1 · mean(x)))``: Hu, Shen and Sun, "Squeeze-and-Excitation
    Networks", CVPR 2018, with its two linear layers as 1x1 convolutions.

    Args:
        channels: of the images.
        squeezed: outputs of the first layer.
        activation: makes ``f``.
        gate: makes the function that ends in [0, 1].

    Example:
        >>> block = SqueezeExcite(16, 4, nn.ReLU, nn.Hardsigmoid)
        >>> tuple(block(torch.ones(2, 16, 5, 5)).shape)
        (2, 16, 5, 5)
    """

    def __init__(
        self, channels: int, squeezed: int, activation: Maker, gate: Maker
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = activation(), gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, channels, H, W)`` to the same shape."""
        mean = x.mean((2, 3), keepdim=True)
        return x * self.scale_activation(self.fc2(self.activation(self.fc1(mean))))
