"""Lookups: the rows of a table that an embedding returns, and their gradients.

A lookup is the matrix product of one-hot rows with a table, of which everything but one
row of the table is multiplied by zero. No program computes it so: the forward pass copies
rows, the backward pass adds the gradients of equal rows together. What is left of the
products are the values that are copied and added, each as a product with one.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch

from elision.common.checks import count
from elision.products.convolution import Conv2dGeometry
from elision.products.geometry import Geometry
from elision.products.kinds import Product
from elision.products.matmul import MatmulGeometry

__all__ = ["LookupGeometry"]


@dataclass(frozen=True)
class LookupGeometry(Geometry):
    """Shape of a lookup: ``rows`` rows of a table, ``width`` values each.

    The input is a one for each row, ``(rows, 1)``; the weight is the rows that were found,
    ``(rows, width)``; so is the gradient. The gradients of equal rows are still apart:
    adding them up is no product.

    It multiplies nothing, so its :attr:`dense_macs` are 0, as ``torch``'s flop counter has
    it. A machine on which it is simulated has no gather unit: it prices every copied or
    added value as a product with one, ``rows`` matrix products of 1 x 1 x ``width``.

    Attributes:
        rows: rows that are looked up.
        width: values in a row.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> LookupGeometry(8, 4).shape_of("weight"), LookupGeometry(8, 4).dense_macs
        ((8, 4), 0)
        >>> LookupGeometry(8, 4).products
        MatmulGeometry(rows=1, inner=1, columns=4, batch=8)
    """

    rows: int
    width: int

    layer: ClassVar[str] = "lookup"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = count("LookupGeometry", field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @property
    def products(self) -> MatmulGeometry:
        """The products with one that a machine without a gather unit computes."""
        return MatmulGeometry(1, 1, self.width, batch=self.rows)

    def shape_of(self, operand: str) -> tuple[int, ...]:
        """Torch shape of ``"input"``, ``"weight"`` or ``"grad_output"``."""
        return {
            "input": (self.rows, 1),
            "weight": (self.rows, self.width),
            "grad_output": (self.rows, self.width),
        }[operand]

    @property
    def dense_macs(self) -> int:
        """0: a lookup multiplies nothing."""
        return 0

    @property
    def weight_is_batched(self) -> bool:
        """Whether the weight has the examples on its first axis, too: it does."""
        return True

    @property
    def description(self) -> str:
        """The shape in words, one line."""
        return f"lookup of {self.rows} x {self.width}"

    def with_batch(self, batch: int) -> "LookupGeometry":
        """A lookup of ``batch`` rows."""
        return replace(self, rows=batch)

    def compute(
        self, kind: Product, first: torch.Tensor, second: torch.Tensor
    ) -> torch.Tensor:
        """The rows that were found, or their gradients; see :meth:`Geometry.compute`."""
        result = first * second
        return result.sum(1, keepdim=True) if kind is Product.INPUT_GRAD else result

    def as_convolution(self, kind: Product) -> tuple[Product, Conv2dGeometry]:
        """That of :attr:`products`."""
        return self.products.as_convolution(kind)

    def to_convolution(self, operand: str, value: Any) -> Any:
        """An operand in the layout of :meth:`as_convolution`."""
        own = value.reshape(self.products.shape_of(operand))
        return self.products.to_convolution(operand, own)

    def from_convolution(self, operand: str, value: Any) -> Any:
        """Inverse of :meth:`to_convolution`."""
        own = self.products.from_convolution(operand, value)
        return own.reshape(self.shape_of(operand))
