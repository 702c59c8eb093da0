"""Shapes of layers, from which the shapes of all three products follow.

All three products of a convolution range over the same set of index tuples. With
stride ``t``, padding ``p`` and dilation ``d``, input pixel ``y``, kernel tap ``r`` and
output pixel ``o`` meet iff ``y = o·t − p + r·d`` (per axis, each within its own range).

Every layer's product is also a product of a convolution
(:meth:`Geometry.as_convolution`): a matrix product that of 1x1 taps on images of one
pixel, a transposed convolution's that of the convolution it transposes, where forward
product and input gradient have changed places. Counting and costing need no other form.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch

from elision.common.checks import integer
from elision.products import dense
from elision.products.kinds import Product

__all__ = [
    "Conv2dGeometry",
    "Conv3dGeometry",
    "ConvTranspose2dGeometry",
    "Convolution",
    "Geometry",
    "MatmulGeometry",
    "geometry_from_json",
    "geometry_of",
]

#: One number for each axis of an image.
Axes = TypeVar("Axes", bound=tuple[int, ...])


class Geometry(ABC):
    """Shape of a layer: the shapes, the work and the dense result of its products.

    Members are frozen dataclasses of integers; equal ones are the same layer shape.
    """

    #: Name of the kind of layer, in traces and messages.
    layer: ClassVar[str]

    @abstractmethod
    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""

    @property
    @abstractmethod
    def dense_macs(self) -> int:
        """Multiply-accumulates of one product, padding included; equal for all three."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The shape in words, one line."""

    @property
    def is_depthwise(self) -> bool:
        """Whether every input channel has filters of its own."""
        return False

    @abstractmethod
    def with_batch(self, batch: int) -> Self:
        """The same layer for ``batch`` examples, which lie along X's first axis."""

    @abstractmethod
    def compute(
        self, kind: Product, first: torch.Tensor, second: torch.Tensor
    ) -> torch.Tensor:
        """One product, computed densely.

        Args:
            kind: the product.
            first: operand ``kind.operands[0]``, torch layout.
            second: operand ``kind.operands[1]``, torch layout.

        Returns:
            ``Y``, ``dX`` or ``dW`` in torch layout and the operands' dtype.
        """

    @abstractmethod
    def as_convolution(self, kind: Product) -> "tuple[Product, Convolution[Any]]":
        """The product of a convolution that product ``kind`` of this layer is."""

    @property
    def reshaped_convolution(self) -> "Conv2dGeometry | None":
        """The 2-D convolution whose operands are this layer's reshaped; None: none."""
        return None

    def convolution_operand(self, operand: str) -> str:
        """Name, in :meth:`as_convolution`'s product, of an operand; its own inverse."""
        return operand

    def to_convolution(self, operand: str, value: Any) -> Any:
        """An operand, tensor or array, in the layout of :meth:`as_convolution`."""
        del operand
        return value

    def from_convolution(self, operand: str, value: Any) -> Any:
        """Inverse of :meth:`to_convolution`; ``operand`` is this layer's name."""
        del operand
        return value

    def to_json(self) -> dict[str, Any]:
        """Kind of layer and sizes, for :func:`geometry_from_json`."""
        return {"kind": self.layer, **asdict(self)}  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> Self:
        """The geometry of the sizes in :meth:`to_json`.

        Raises:
            TypeError: a size is missing or unknown.
            ValueError: a size is out of range.
        """
        return cls(**sizes)


#: Least value of each parameter that has one number an axis.
_MINIMA = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1}


class Convolution(Geometry, Generic[Axes]):
    """A convolution over images of any number of axes; the layouts are torch's."""

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
            if type(value) is not int or value < 1:
                object.__setattr__(self, name, integer(owner, name, value))
        for name, minimum in _MINIMA.items():
            value = getattr(self, name)
            own = _per_axis(owner, name, value, minimum, len(self.axes))
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
        convolution = (self.stride, self.padding, self.dilation, self.groups)
        shapes = (self.shape_of("input"), self.shape_of("weight"))
        return dense.product(kind, first, second, convolution, shapes)

    def as_convolution(self, kind: Product) -> "tuple[Product, Convolution[Axes]]":
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


_TRANSPOSED = {
    Product.FORWARD: Product.INPUT_GRAD,
    Product.INPUT_GRAD: Product.FORWARD,
    Product.WEIGHT_GRAD: Product.WEIGHT_GRAD,
}


@dataclass(frozen=True)
class ConvTranspose2dGeometry(Geometry):
    """Shape of a transposed 2-D convolution, by the convolution that it transposes.

    Forward product and input gradient have changed places: the layer's input is the
    convolution's ``grad_output``, its output has the shape of the convolution's input.
    The weight is ``(C, K/groups, R, S)`` for ``C`` input and ``K`` output channels.

    Attributes:
        convolution: from the layer's output to its input.

    Example:
        >>> layer = ConvTranspose2dGeometry.of((1, 8, 4, 4), (8, 3, 2, 2), stride=2)
        >>> layer.shape_of("grad_output")
        (1, 3, 8, 8)
    """

    convolution: Conv2dGeometry

    layer: ClassVar[str] = "conv_transpose2d"

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> "ConvTranspose2dGeometry":
        """Geometry from the shapes of the layer's input and weight.

        Args:
            input_shape: ``(N, C, H, W)``.
            weight_shape: ``(C, K/groups, R, S)``.
            stride: pixels of the output between those of neighbouring inputs.
            padding: rows and columns cut off on each side of the output.
            output_padding: rows and columns added to the output's end; less than the
                stride, as more would belong to no product.
            dilation: step between taps.
            groups: independent blocks of channels.

        Raises:
            ValueError: a parameter out of range.
        """
        batch, _, *inputs = input_shape
        channels, per_group, *kernel = weight_shape
        named = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "dilation": dilation,
        }
        minimum = {"stride": 1, "dilation": 1}
        owner = cls.__name__
        s, p, extra, d = (
            _per_axis(owner, name, value, minimum.get(name, 0), 2)
            for name, value in named.items()
        )
        if extra[0] >= s[0] or extra[1] >= s[1]:
            raise ValueError(
                f"{owner}(output_padding={output_padding!r}): must be less than the "
                f"stride {s}"
            )
        outputs = [
            (size - 1) * s[axis]
            - 2 * p[axis]
            + d[axis] * (kernel[axis] - 1)
            + extra[axis]
            + 1
            for axis, size in enumerate(inputs)
        ]
        return cls(
            Conv2dGeometry.of(
                (batch, per_group * groups, *outputs),
                (channels, per_group, *kernel),
                stride=s,
                padding=p,
                dilation=d,
                groups=groups,
            )
        )

    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""
        return self.convolution.shape_of(self.convolution_operand(operand))

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one product, padding included; equal for all three."""
        return self.convolution.dense_macs

    @property
    def is_depthwise(self) -> bool:
        """Whether every input channel has filters of its own."""
        return self.convolution.groups == self.convolution.out_channels > 1

    @property
    def description(self) -> str:
        """The shape in words, one line."""
        return f"transposed {self.convolution.description}"

    def with_batch(self, batch: int) -> "ConvTranspose2dGeometry":
        """The same layer for ``batch`` images."""
        return ConvTranspose2dGeometry(self.convolution.with_batch(batch))

    def compute(
        self, kind: Product, first: torch.Tensor, second: torch.Tensor
    ) -> torch.Tensor:
        """One product, computed densely; see :meth:`Geometry.compute`."""
        if kind is Product.WEIGHT_GRAD:  # the input is the convolution's G
            first, second = second, first
        return self.convolution.compute(_TRANSPOSED[kind], first, second)

    def as_convolution(self, kind: Product) -> tuple[Product, Conv2dGeometry]:
        """The convolution's product that has changed places with ``kind``."""
        return _TRANSPOSED[kind], self.convolution

    def convolution_operand(self, operand: str) -> str:
        """Input and gradient of the output exchange their names."""
        exchanged = {"input": "grad_output", "grad_output": "input"}
        return exchanged.get(operand, operand)

    def to_json(self) -> dict[str, Any]:
        """Kind of layer and sizes of the convolution."""
        return {"kind": self.layer, **asdict(self.convolution)}

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> "ConvTranspose2dGeometry":
        """The geometry of the sizes in :meth:`to_json`."""
        return cls(Conv2dGeometry(**sizes))


@dataclass(frozen=True)
class MatmulGeometry(Geometry):
    """Shape of a linear layer, or of ``batch`` independent matrix products.

    ``Y[rows, columns] = X[rows, inner] · W[columns, inner]ᵀ``. With a ``batch`` above 1,
    as for the heads of attention, every operand has a first axis of that size.

    Attributes:
        rows: rows of X and Y.
        inner: summation index of the forward product.
        columns: columns of Y.
        batch: independent products.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> MatmulGeometry(8, 4, 5).shape_of("weight")
        (5, 4)
        >>> MatmulGeometry(8, 4, 5, batch=2).shape_of("weight")
        (2, 5, 4)
    """

    rows: int
    inner: int
    columns: int
    batch: int = 1

    layer: ClassVar[str] = "matmul"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = integer("MatmulGeometry", field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""
        shape = {
            "input": (self.rows, self.inner),
            "weight": (self.columns, self.inner),
            "grad_output": (self.rows, self.columns),
        }[operand]
        return shape if self.batch == 1 else (self.batch, *shape)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one product, ``batch·rows·inner·columns``."""
        return self.batch * self.rows * self.inner * self.columns

    @property
    def description(self) -> str:
        """The shape in words, one line."""
        size = f"linear {self.rows} x {self.inner} -> {self.columns}"
        return size if self.batch == 1 else f"{size}, batch {self.batch}"

    def with_batch(self, batch: int) -> "MatmulGeometry":
        """The same layer for ``batch`` rows; of a batched one, that many products."""
        if self.batch == 1:
            return replace(self, rows=batch)
        return replace(self, batch=batch)

    def compute(
        self, kind: Product, first: torch.Tensor, second: torch.Tensor
    ) -> torch.Tensor:
        """One product, computed densely; see :meth:`Geometry.compute`."""
        shapes = (self.shape_of("input"), self.shape_of("weight"))
        return dense.product(kind, first, second, None, shapes)

    def as_convolution(self, kind: Product) -> tuple[Product, Conv2dGeometry]:
        """The same product of 1x1 taps on ``rows`` images of one pixel.

        The products of a batch are its groups.
        """
        channels, filters = self.batch * self.inner, self.batch * self.columns
        image = (self.rows, channels, 1, 1)
        return kind, Conv2dGeometry(*image, filters, 1, groups=self.batch)

    @property
    def reshaped_convolution(self) -> Conv2dGeometry | None:
        """1x1 taps on ``rows`` images; None for a batch, whose rows are not together."""
        return None if self.batch > 1 else self.as_convolution(Product.FORWARD)[1]

    def to_convolution(self, operand: str, value: Any) -> Any:
        """Images of one pixel: the rows first, channels of a batch entry together."""
        if operand == "weight":
            return value.reshape(-1, self.inner, 1, 1)
        if self.batch > 1:
            value = value.swapaxes(0, 1)
        return value.reshape(self.rows, -1, 1, 1)

    def from_convolution(self, operand: str, value: Any) -> Any:
        """Inverse of :meth:`to_convolution`."""
        if operand != "weight" and self.batch > 1:
            value = value.reshape(self.rows, self.batch, -1).swapaxes(0, 1)
        return value.reshape(self.shape_of(operand))

    def to_json(self) -> dict[str, Any]:
        """Kind of layer and sizes; a batch of 1, which older traces lack, is left out."""
        sizes = super().to_json()
        if self.batch == 1:
            del sizes["batch"]
        return sizes


_GEOMETRIES: dict[str, type[Geometry]] = {
    member.layer: member
    for member in (
        Conv2dGeometry,
        MatmulGeometry,
        ConvTranspose2dGeometry,
        Conv3dGeometry,
    )
}


def geometry_from_json(entry: dict[str, Any]) -> Geometry:
    """The geometry that :meth:`Geometry.to_json` wrote.

    Raises:
        KeyError: no kind, or an unknown one.
        TypeError: a size is missing or unknown.
        ValueError: a size is out of range.

    Example:
        >>> geometry_from_json(MatmulGeometry(8, 4, 5).to_json())
        MatmulGeometry(rows=8, inner=4, columns=5, batch=1)
    """
    sizes = dict(entry)
    return _GEOMETRIES[sizes.pop("kind")].from_sizes(sizes)


def geometry_of(
    input: tuple[int, ...], weight: tuple[int, ...], convolution: Any
) -> Geometry:
    """Geometry from the shapes of a linear layer's or 2-D convolution's operands.

    Args:
        input: shape of X.
        weight: shape of W.
        convolution: (stride, padding, dilation, groups); None: a linear layer.
    """
    if convolution is None:
        return MatmulGeometry(input[0], input[1], weight[0])
    stride, padding, dilation, groups = convolution
    return Conv2dGeometry.of(
        input, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def _per_axis(
    owner: str, name: str, value: Any, minimum: int, rank: int
) -> tuple[int, ...]:
    """``value`` as ``rank`` integers of at least ``minimum``; one stands for all."""
    if type(value) is tuple and len(value) == rank:
        for v in value:
            if type(v) is not int or v < minimum:
                break
        else:
            return value
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    if len(values) != rank or any(
        isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < minimum
        for v in values
    ):
        group = {2: "a pair", 3: "a triple"}[rank]
        raise ValueError(
            f"{owner}.{name} must be an integer >= {minimum} or {group} of them, "
            f"got {value!r}"
        )
    return tuple(int(v) for v in values)


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
