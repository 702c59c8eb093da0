"""Convolutions over images of any number of axes.

All three products of a convolution range over the same set of index tuples. With
stride ``t``, padding ``p`` and dilation ``d``, input pixel ``y``, kernel tap ``r`` and
output pixel ``o`` meet iff ``y = o·t − p + r·d`` (per axis, each within its own range).
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch

from elision.common.checks import MOST_COUNT, count
from elision.products import dense
from elision.products.geometry import Geometry
from elision.products.kinds import Product
from elision.products.parameters import ConvolutionParameters

__all__ = ["Conv2dGeometry", "Conv3dGeometry", "Convolution", "per_axis"]

#: One number for each axis of an image.
Axes = TypeVar("Axes", bound=tuple[int, ...])


#: Least value of each parameter that has one number an axis.
_MINIMA = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1}


class Convolution(Geometry, Generic[Axes]):
    """A convolution over images of any number of axes; the layouts are torch's.

    Example:
        >>> layer = Conv2dGeometry.of((1, 3, 8, 8), (16, 3, 3, 3), stride=2, padding=1)
        >>> isinstance(layer, Convolution), layer.out_sizes, layer.with_batch(4).batch
        (True, (4, 4), 4)
        >>> layer.description
        'conv 1 x 3 @ 8x8 -> 16, kernel 3x3, stride 2x2, padding 1x1'
    """

    batch: int
    in_channels: int
    out_channels: int
    kernel: Axes
    stride: Axes
    padding: Axes
    dilation: Axes
    groups: int

    #: Fields that hold the image's sizes, one an axis.
    axes: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("batch", "in_channels", *self.axes, "out_channels", "groups"):
            value = getattr(self, name)
            object.__setattr__(self, name, count(owner, name, value))
        for name, minimum in _MINIMA.items():
            value = getattr(self, name)
            own = per_axis(owner, name, value, minimum, len(self.axes))
            if own is not value:
                object.__setattr__(self, name, own)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{owner}.groups={self.groups} must divide in_channels="
                f"{self.in_channels} and out_channels={self.out_channels}"
            )
        if min(self.out_sizes) < 1:
            raise ValueError(
                f"{owner}: kernel {self.kernel} with dilation {self.dilation} "
                f"does not fit the input {_by(self.sizes)} padded by {self.padding}"
            )

    @classmethod
    def of(
        cls, input_shape: tuple[int, ...], weight_shape: tuple[int, ...], **how: Any
    ) -> Self:
        """Geometry of a convolution from the shapes of its input and weight.

        Args:
            input_shape: ``(N, C, *sizes)``.
            weight_shape: ``(K, C/groups, *kernel)``.
            **how: stride, padding, dilation, groups.
        """
        batch, channels, *sizes = input_shape
        out_channels, _, *kernel = weight_shape
        sizes = dict(zip(cls.axes, sizes, strict=True))
        return cls.from_sizes(
            {
                "batch": batch,
                "in_channels": channels,
                **sizes,
                "out_channels": out_channels,
                "kernel": tuple(kernel),
                **how,
            }
        )

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Pixels of the input along each axis."""

    @property
    def out_sizes(self) -> tuple[int, ...]:
        """Pixels of the output along each axis."""
        return tuple(
            (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
            for size, padding, dilation, taps, stride in zip(
                self.sizes,
                self.padding,
                self.dilation,
                self.kernel,
                self.stride,
                strict=True,
            )
        )

    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""
        if operand == "input":
            return self.batch, self.in_channels, *self.sizes
        if operand == "weight":
            return self.out_channels, self.in_channels // self.groups, *self.kernel
        if operand == "grad_output":
            return self.batch, self.out_channels, *self.out_sizes
        raise KeyError(operand)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one product, padding included; equal for all three.

        Outputs times values of a filter, the convention of ``torch.utils.flop_counter``
        (which counts two operations each).
        """
        filter_size = math.prod(self.shape_of("weight")[1:])
        return math.prod(self.shape_of("grad_output")) * filter_size

    @property
    def is_depthwise(self) -> bool:
        """Whether every input channel has filters of its own."""
        return self.groups == self.in_channels > 1

    @property
    def parameters(self) -> ConvolutionParameters:
        """What torch's function of the layer is called with."""
        return ConvolutionParameters(
            self.stride, self.padding, self.dilation, self.groups
        )

    @property
    def description(self) -> str:
        """The shape in words, one line."""
        rank = len(self.axes)
        name = "conv" if rank == 2 else self.layer
        size = f"{self.in_channels} @ {_by(self.sizes)} -> {self.out_channels}"
        words = [f"{name} {self.batch} x {size}", f"kernel {_by(self.kernel)}"]
        for option, value, usual in (
            ("stride", self.stride, (1,) * rank),
            ("padding", self.padding, (0,) * rank),
            ("dilation", self.dilation, (1,) * rank),
            # Decisions are kept under these words, so "groups 2x1" stays as it is.
            ("groups", (self.groups, 1), (1, 1)),
        ):
            if value != usual:
                words.append(f"{option} {_by(value)}")
        return ", ".join(words)

    def with_batch(self, batch: int) -> Self:
        """The same layer for ``batch`` images."""
        return replace(self, batch=batch)  # pyright: ignore[reportArgumentType]

    def compute(
        self, kind: Product, first: torch.Tensor, second: torch.Tensor
    ) -> torch.Tensor:
        """One product, computed densely; see :meth:`Geometry.compute`."""
        shapes = (self.shape_of("input"), self.shape_of("weight"))
        return dense.product(kind, first, second, self.parameters, shapes)

    def as_convolution(self, kind: Product) -> "tuple[Product, Convolution[Any]]":
        """The product itself."""
        return kind, self


@dataclass(frozen=True)
class Conv2dGeometry(Convolution[tuple[int, int]]):
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

    Example:
        >>> layer = Conv2dGeometry(1, 3, 8, 8, 16, kernel=3, stride=2, padding=1)
        >>> layer.shape_of("grad_output"), layer.dense_macs
        ((1, 16, 4, 4), 6912)
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

    layer: ClassVar[str] = "conv2d"
    axes: ClassVar[tuple[str, ...]] = ("height", "width")

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

    @classmethod
    def of_1d(
        cls,
        input_shape: tuple[int, int, int],
        weight_shape: tuple[int, int, int],
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ) -> "Conv2dGeometry":
        """A 1-D convolution as the 2-D one of height 1, whose operands are reshaped.

        Args:
            input_shape: ``(N, C, L)``.
            weight_shape: ``(K, C/groups, R)``.
            stride: step between outputs.
            padding: zeros added at both ends.
            dilation: step between taps.
            groups: independent blocks of channels.

        Example:
            >>> layer = Conv2dGeometry.of_1d((2, 4, 10), (8, 4, 3), padding=1)
            >>> layer.shape_of("grad_output")
            (2, 8, 1, 10)
        """
        batch, channels, length = input_shape
        filters, per_group, taps = weight_shape
        return cls.of(
            (batch, channels, 1, length),
            (filters, per_group, 1, taps),
            stride=(1, stride),
            padding=(0, padding),
            dilation=(1, dilation),
            groups=groups,
        )

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return self.height, self.width

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return self.out_sizes[0]

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return self.out_sizes[1]

    @property
    def reshaped_convolution(self) -> "Conv2dGeometry":
        """The geometry itself."""
        return self


@dataclass(frozen=True)
class Conv3dGeometry(Convolution[tuple[int, int, int]]):
    """Shape of a 3-D convolution; attributes are those of :class:`Conv2dGeometry`.

    The image has a ``depth``, its first axis; ``kernel``, ``stride``, ``padding`` and
    ``dilation`` are an integer or three of them.

    Raises:
        ValueError: as for :class:`Conv2dGeometry`.

    Example:
        >>> layer = Conv3dGeometry(1, 3, 4, 8, 8, 16, kernel=3, padding=1)
        >>> layer.shape_of("grad_output")
        (1, 16, 4, 8, 8)
    """

    batch: int
    in_channels: int
    depth: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int] = (1, 1, 1)
    padding: tuple[int, int, int] = (0, 0, 0)
    dilation: tuple[int, int, int] = (1, 1, 1)
    groups: int = 1

    layer: ClassVar[str] = "conv3d"
    axes: ClassVar[tuple[str, ...]] = ("depth", "height", "width")

    if TYPE_CHECKING:  # what may be given; what is kept are triples

        def __init__(
            self,
            batch: int,
            in_channels: int,
            depth: int,
            height: int,
            width: int,
            out_channels: int,
            kernel: int | tuple[int, int, int],
            stride: int | tuple[int, int, int] = 1,
            padding: int | tuple[int, int, int] = 0,
            dilation: int | tuple[int, int, int] = 1,
            groups: int = 1,
        ) -> None: ...

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Planes, rows and columns of the input."""
        return self.depth, self.height, self.width


def per_axis(
    owner: str, name: str, value: Any, minimum: int, rank: int
) -> tuple[int, ...]:
    """``value`` as ``rank`` integers from ``minimum`` on; one stands for all."""
    if type(value) is tuple and len(value) == rank:
        for v in value:
            if type(v) is not int or not minimum <= v <= MOST_COUNT:
                break
        else:
            return value
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    if len(values) != rank or any(
        isinstance(v, bool)
        or not isinstance(v, (int, np.integer))
        or not minimum <= v <= MOST_COUNT
        for v in values
    ):
        most = f" and <= {MOST_COUNT}" if _is_large(values) else ""
        group = {1: "a tuple", 2: "a pair", 3: "a triple"}[rank]
        raise ValueError(
            f"{owner}.{name} must be an integer >= {minimum}{most} or {group} of "
            f"{'one' if rank == 1 else 'them'}, "
            f"got {value!r}"
        )
    return tuple(int(v) for v in values)


def _is_large(values: tuple[Any, ...]) -> bool:
    """Whether a number is larger than any size of a tensor."""
    return any(isinstance(v, (int, np.integer)) and v > MOST_COUNT for v in values)


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
