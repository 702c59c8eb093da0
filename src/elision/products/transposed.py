"""Transposed convolutions: a convolution whose products have changed places."""

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import torch

from elision.products import dense
from elision.products.conv1d import Conv1dGeometry
from elision.products.convolution import (
    Conv2dGeometry,
    Conv3dGeometry,
    Convolution,
    per_axis,
)
from elision.products.geometry import Geometry
from elision.products.kinds import Product
from elision.products.matmul import MatmulGeometry
from elision.products.parameters import INPUTS_FIRST, ConvolutionParameters

__all__ = [
    "ConvTranspose1dGeometry",
    "ConvTranspose2dGeometry",
    "ConvTranspose3dGeometry",
    "TransposedConvolution",
    "TransposedMatmulGeometry",
]

_TRANSPOSED = {
    Product.FORWARD: Product.INPUT_GRAD,
    Product.INPUT_GRAD: Product.FORWARD,
    Product.WEIGHT_GRAD: Product.WEIGHT_GRAD,
}


@dataclass(frozen=True)
class TransposedConvolution(Geometry):
    """Shape of a transposed convolution, by the convolution that it transposes.

    Forward product and input gradient have changed places: the layer's input is the
    convolution's ``grad_output``, its output has the shape of the convolution's input.
    The weight is ``(C, K/groups, *kernel)`` for ``C`` input and ``K`` output channels.

    Attributes:
        convolution: from the layer's output to its input.

    Example:
        >>> layer = ConvTranspose1dGeometry.of((1, 8, 4), (8, 3, 2), stride=2)
        >>> isinstance(layer, TransposedConvolution), layer.description
        (True, 'transposed conv1d 1 x 3 @ 8 -> 8, kernel 2, stride 2')
    """

    convolution: Convolution[Any]

    #: Class of the convolution.
    transposes: ClassVar[type[Convolution[Any]]]

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> Self:
        """Geometry from the shapes of the layer's input and weight.

        Args:
            input_shape: ``(N, C, *sizes)``.
            weight_shape: ``(C, K/groups, *kernel)``.
            stride: pixels of the output between those of neighbouring inputs.
            padding: pixels cut off on each side of the output.
            output_padding: pixels added to the output's end; less than the stride, as
                more would belong to no product.
            dilation: step between taps.
            groups: independent blocks of channels.

        Raises:
            ValueError: a parameter out of range.
        """
        named = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "dilation": dilation,
        }
        minimum = {"stride": 1, "dilation": 1}
        owner, rank = cls.__name__, len(cls.transposes.axes)
        s, p, extra, d = (
            per_axis(owner, name, value, minimum.get(name, 0), rank)
            for name, value in named.items()
        )
        if any(e >= step for e, step in zip(extra, s, strict=True)):
            raise ValueError(
                f"{owner}(output_padding={output_padding!r}): must be less than the "
                f"stride {s}"
            )
        how = ConvolutionParameters(s, p, d, groups, True, extra)
        return cls(
            cls.transposes.of(
                how.output_shape(input_shape, weight_shape),
                weight_shape,
                stride=s,
                padding=p,
                dilation=d,
                groups=groups,
            )
        )

    @property
    def parameters(self) -> ConvolutionParameters:
        """What torch's function of the layer is called with."""
        own = self.convolution
        how = ConvolutionParameters(
            own.stride, own.padding, own.dilation, own.groups, True
        )
        shapes = self.shape_of("input"), self.shape_of("weight")
        bare = how.output_shape(*shapes)[2:]
        extra = (n - least for n, least in zip(own.sizes, bare, strict=True))
        return how._replace(output_padding=tuple(extra))

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

    def with_batch(self, batch: int) -> Self:
        """The same layer for ``batch`` images."""
        return type(self)(self.convolution.with_batch(batch))

    def compute(
        self, kind: Product, first: torch.Tensor, second: torch.Tensor
    ) -> torch.Tensor:
        """One product, computed densely; see :meth:`Geometry.compute`."""
        shapes = self.shape_of("input"), self.shape_of("weight")
        return dense.product(kind, first, second, self.parameters, shapes)

    def as_convolution(self, kind: Product) -> tuple[Product, Convolution[Any]]:
        """The convolution's product that has changed places with ``kind``."""
        return self.convolution.as_convolution(_TRANSPOSED[kind])

    @property
    def reshaped_convolution(self) -> Conv2dGeometry | None:
        """That of the convolution; None over three axes."""
        return self.convolution.reshaped_convolution

    def convolution_product(self, kind: Product) -> Product:
        """Forward product and input gradient have changed places."""
        return _TRANSPOSED[kind]

    def convolution_operand(self, operand: str) -> str:
        """Input and gradient of the output exchange their names."""
        exchanged = {"input": "grad_output", "grad_output": "input"}
        return exchanged.get(operand, operand)

    def to_convolution(self, operand: str, value: Any) -> Any:
        """An operand of the convolution, over a line with one row."""
        own = self.convolution_operand(operand)
        return self.convolution.to_convolution(own, value)

    def from_convolution(self, operand: str, value: Any) -> Any:
        """Inverse of :meth:`to_convolution`."""
        own = self.convolution_operand(operand)
        return self.convolution.from_convolution(own, value)

    def to_json(self) -> dict[str, Any]:
        """Kind of layer and sizes of the convolution."""
        return {"kind": self.layer, **asdict(self.convolution)}  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any]) -> Self:
        """The geometry of the sizes in :meth:`to_json`."""
        return cls(cls.transposes(**sizes))


@dataclass(frozen=True)
class ConvTranspose1dGeometry(TransposedConvolution):
    """Shape of a transposed 1-D convolution.

    Example:
        >>> layer = ConvTranspose1dGeometry.of((1, 8, 4), (8, 3, 2), stride=2)
        >>> layer.shape_of("grad_output")
        (1, 3, 8)
    """

    convolution: Conv1dGeometry

    layer: ClassVar[str] = "conv_transpose1d"
    transposes: ClassVar[type[Convolution[Any]]] = Conv1dGeometry


@dataclass(frozen=True)
class ConvTranspose2dGeometry(TransposedConvolution):
    """Shape of a transposed 2-D convolution.

    Example:
        >>> layer = ConvTranspose2dGeometry.of((1, 8, 4, 4), (8, 3, 2, 2), stride=2)
        >>> layer.shape_of("grad_output")
        (1, 3, 8, 8)
    """

    convolution: Conv2dGeometry

    layer: ClassVar[str] = "conv_transpose2d"
    transposes: ClassVar[type[Convolution[Any]]] = Conv2dGeometry


@dataclass(frozen=True)
class ConvTranspose3dGeometry(TransposedConvolution):
    """Shape of a transposed 3-D convolution.

    Example:
        >>> layer = ConvTranspose3dGeometry.of((1, 8, 2, 4, 4), (8, 3, 2, 2, 2), stride=2)
        >>> layer.shape_of("grad_output")
        (1, 3, 4, 8, 8)
    """

    convolution: Conv3dGeometry

    layer: ClassVar[str] = "conv_transpose3d"
    transposes: ClassVar[type[Convolution[Any]]] = Conv3dGeometry


@dataclass(frozen=True)
class TransposedMatmulGeometry(TransposedConvolution):
    """Shape of a matrix product whose weight is ``(inner, columns)``.

    It transposes a linear layer, as a transposed convolution does a convolution.

    Attributes:
        convolution: the linear layer that is transposed: what is its ``inner`` are the
            columns here.

    Example:
        >>> layer = TransposedMatmulGeometry.of((8, 4), (4, 5))
        >>> layer.shape_of("weight"), layer.shape_of("grad_output"), layer.matmul
        ((4, 5), (8, 5), MatmulGeometry(rows=8, inner=4, columns=5, batch=1))
    """

    convolution: MatmulGeometry  # pyright: ignore[reportIncompatibleVariableOverride]

    layer: ClassVar[str] = "transposed_matmul"
    transposes: ClassVar[type[Geometry]] = MatmulGeometry  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def of(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, input_shape: tuple[int, ...], weight_shape: tuple[int, ...], *_: Any
    ) -> Self:
        """Geometry from the shapes ``(rows, inner)`` and ``(inner, columns)``."""
        inner, columns = weight_shape
        return cls(MatmulGeometry(input_shape[0], columns, inner))

    @property
    def matmul(self) -> MatmulGeometry:
        """The same product with the weight turned."""
        own = self.convolution
        return replace(own, inner=own.columns, columns=own.inner)

    @property
    def parameters(self) -> ConvolutionParameters:
        """Those of a transposed convolution over no axis."""
        return INPUTS_FIRST

    @property
    def is_depthwise(self) -> bool:
        """False."""
        return False

    @property
    def description(self) -> str:
        """The shape in words, one line."""
        return self.matmul.description
