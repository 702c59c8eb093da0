"""Transposed convolutions: a convolution whose products have changed places."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch

from elision.products.convolution import Conv2dGeometry, per_axis
from elision.products.geometry import Geometry
from elision.products.kinds import Product

__all__ = ["ConvTranspose2dGeometry"]

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
            per_axis(owner, name, value, minimum.get(name, 0), 2)
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
        if (
            kind is Product.WEIGHT_GRAD
        ):  # the convolution's gradient is this one's input
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
