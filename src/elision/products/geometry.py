"""Shapes of layers, from which the shapes of all three products follow.

All three products of a convolution range over the same set of index tuples. With
stride ``t``, padding ``p`` and dilation ``d``, input pixel ``y``, kernel tap ``r`` and
output pixel ``o`` meet iff ``y = o·t − p + r·d`` (per axis, each within its own range).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

__all__ = ["Conv2dGeometry", "Geometry", "MatmulGeometry", "geometry_of"]


def _pair(name: str, value: Any, minimum: int) -> tuple[int, int]:
    """Return ``value`` as (vertical, horizontal) integers of at least ``minimum``."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(
        isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < minimum
        for v in pair
    ):
        raise ValueError(
            f"{name} must be an integer >= {minimum} or a pair of them, got {value!r}"
        )
    return int(pair[0]), int(pair[1])


def _positive(owner: object, *names: str) -> None:
    """Raise ValueError unless each named attribute is an integer of at least 1."""
    for name in names:
        value = getattr(owner, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, np.integer))
            or value < 1
        ):
            raise ValueError(
                f"{type(owner).__name__}.{name} must be an integer >= 1, got {value!r}"
            )
        object.__setattr__(owner, name, int(value))


@dataclass(frozen=True)
class Conv2dGeometry:
    """Shape of a 2-D convolution; the layouts are torch's.

    ``kernel``, ``stride``, ``padding`` and ``dilation`` take an integer or a
    (vertical, horizontal) pair and are stored as pairs.

    Attributes:
        batch: images, ``N``.
        in_channels: channels of the input, ``C``.
        height: rows of the input, ``H``.
        width: columns of the input, ``W``.
        out_channels: channels of the output, ``K``.
        kernel: taps, ``(R, S)``.
        stride: step between output pixels, in input pixels.
        padding: zeros added on each side of the input.
        dilation: step between taps, in input pixels.
        groups: independent blocks of channels; divides both channel counts.

    Raises:
        ValueError: a size is not a positive integer, ``groups`` does not divide the
            channels, or the dilated kernel is larger than the padded input.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    if TYPE_CHECKING:  # what may be given; what is kept are pairs

        def __init__(
            self,
            batch: int,
            in_channels: int,
            height: int,
            width: int,
            out_channels: int,
            kernel: int | tuple[int, int],
            stride: int | tuple[int, int] = 1,
            padding: int | tuple[int, int] = 0,
            dilation: int | tuple[int, int] = 1,
            groups: int = 1,
        ) -> None: ...

    def __post_init__(self) -> None:
        _positive(
            self, "batch", "in_channels", "height", "width", "out_channels", "groups"
        )
        minima = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1}
        for name, minimum in minima.items():
            value = _pair(f"Conv2dGeometry.{name}", getattr(self, name), minimum)
            object.__setattr__(self, name, value)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"Conv2dGeometry.groups={self.groups} must divide in_channels="
                f"{self.in_channels} and out_channels={self.out_channels}"
            )
        if self.out_height < 1 or self.out_width < 1:
            raise ValueError(
                f"Conv2dGeometry: kernel {self.kernel} with dilation {self.dilation} "
                f"does not fit the input {self.height}x{self.width} padded by "
                f"{self.padding}"
            )

    @classmethod
    def of(
        cls, input_shape: tuple[int, ...], weight_shape: tuple[int, ...], **how: Any
    ) -> "Conv2dGeometry":
        """Geometry of a convolution from the shapes of its input and weight.

        Args:
            input_shape: ``(N, C, H, W)``.
            weight_shape: ``(K, C/groups, R, S)``.
            **how: stride, padding, dilation, groups.
        """
        batch, channels, height, width = input_shape
        out_channels, _, *kernel = weight_shape
        pair = (kernel[0], kernel[1])
        return cls(batch, channels, height, width, out_channels, pair, **how)

    @property
    def convolution(self) -> tuple[Any, Any, Any, int]:
        """Stride, padding, dilation and groups, in the order of ``F.conv2d``."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return self._out(0, self.height)

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return self._out(1, self.width)

    def _out(self, axis: int, size: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.padding[axis] - reach) // self.stride[axis] + 1

    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""
        return {
            "input": (self.batch, self.in_channels, self.height, self.width),
            "weight": (
                self.out_channels,
                self.in_channels // self.groups,
                *self.kernel,
            ),
            "grad_output": (
                self.batch,
                self.out_channels,
                self.out_height,
                self.out_width,
            ),
        }[operand]

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one product, padding included; equal for all three.

        ``N·K·Ho·Wo·(C/groups)·R·S``, the convention of ``torch.utils.flop_counter``
        (which counts two operations each).
        """
        outputs = self.batch * self.out_channels * self.out_height * self.out_width
        return outputs * (self.in_channels // self.groups) * int(np.prod(self.kernel))


@dataclass(frozen=True)
class MatmulGeometry:
    """Shape of a linear layer.

    ``Y[rows, columns] = X[rows, inner] · W[columns, inner]ᵀ``.

    Raises:
        ValueError: a size is not a positive integer.
    """

    rows: int
    inner: int
    columns: int

    def __post_init__(self) -> None:
        _positive(self, "rows", "inner", "columns")

    @property
    def convolution(self) -> None:
        """None: a matrix product has no stride, padding, dilation or groups."""
        return

    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""
        return {
            "input": (self.rows, self.inner),
            "weight": (self.columns, self.inner),
            "grad_output": (self.rows, self.columns),
        }[operand]

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one product, ``rows·inner·columns``."""
        return self.rows * self.inner * self.columns


Geometry = Conv2dGeometry | MatmulGeometry


def geometry_of(
    input: tuple[int, ...], weight: tuple[int, ...], convolution: Any
) -> Geometry:
    """Geometry from the shapes of a layer's input and weight."""
    if convolution is None:
        return MatmulGeometry(input[0], input[1], weight[0])
    stride, padding, dilation, groups = convolution
    return Conv2dGeometry.of(
        input, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
