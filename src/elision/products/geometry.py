"""Shapes of layers, from which the shapes of all three products follow.

Every layer's product is also a product of a convolution
(:meth:`Geometry.as_convolution`): a matrix product that of 1x1 taps on images of one
pixel, a transposed convolution's that of the convolution it transposes, where forward
product and input gradient have changed places. Counting and costing need no other form.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar, Self

import torch

from elision.products.kinds import Product

__all__ = ["Geometry"]


class Geometry(ABC):
    """Shape of a layer: the shapes, the work and the dense result of its products.

    Members are frozen dataclasses of integers; equal ones are the same layer shape.

    Example:
        >>> from elision.products import Conv2dGeometry, MatmulGeometry
        >>> layers = MatmulGeometry(1, 2, 3), Conv2dGeometry(1, 3, 8, 8, 16, kernel=3)
        >>> [(layer.layer, layer.shape_of("weight"), layer.dense_macs) for layer in layers]
        [('matmul', (3, 2), 6), ('conv2d', (16, 3, 3, 3), 15552)]
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

    @property
    def weight_is_batched(self) -> bool:
        """Whether the weight has the examples on its first axis, too."""
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
    def as_convolution(self, kind: Product) -> tuple[Product, Any]:
        """The product of a convolution that product ``kind`` of this layer is."""

    @property
    def reshaped_convolution(self) -> Any:
        """The 2-D convolution whose operands are this layer's reshaped; None: none.

        Its product and operands are those that :meth:`convolution_product` and
        :meth:`convolution_operand` name.
        """
        return None

    def convolution_product(self, kind: Product) -> Product:
        """The product, in :meth:`as_convolution`, that ``kind`` of this layer is."""
        return kind

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
