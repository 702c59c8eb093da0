"""Matrix products: linear layers, and batches such as the heads of attention."""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch

from elision.common.checks import count
from elision.products import dense
from elision.products.convolution import Conv2dGeometry
from elision.products.geometry import Geometry
from elision.products.kinds import Product

__all__ = ["MatmulGeometry"]


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
            value = count("MatmulGeometry", field.name, getattr(self, field.name))
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
    def weight_is_batched(self) -> bool:
        """Whether there are several products, each with a weight of its own."""
        return self.batch > 1

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
