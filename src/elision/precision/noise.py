"""Noise to signal of a product whose operands are rounded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from elision.layers import turned_transform
from elision.operands import Transform
from elision.products import Geometry, LayerProduct, TransposedConvolution

__all__ = [
    "NoiseSum",
    "as_read",
    "product_noise",
    "relative_error",
    "rounded_operand",
    "rounded_product",
]


def relative_error(found: Tensor, exact: Tensor) -> float:
    """``‖found − exact‖/‖exact‖`` of all values; infinite where only ``exact`` is 0.

    Example:
        >>> relative_error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]))
        0.2
    """
    return _ratio(float((found - exact).norm()), float(exact.norm()))


def rounded_operand(x: Tensor, how: Transform) -> Tensor:
    """An operand as a product reads it through a transform, outside of training."""
    return how(x, list(how.initial_state().values()), False)


def as_read(geometry: Geometry, operand: str, how: Transform) -> Transform:
    """A transform as a layer of this geometry applies it.

    That of a transposed convolution's weight sees the outputs on axis 0.
    """
    if operand == "weight" and isinstance(geometry, TransposedConvolution):
        return turned_transform(how, geometry.convolution.groups)
    return how


def rounded_product(
    product: LayerProduct, roundings: Mapping[str, Transform]
) -> LayerProduct:
    """The product with some of its operands rounded.

    Args:
        product: with its operands, as torch tensors.
        roundings: operand -> what is done to it; others stay.
    """
    first, second = (
        rounded_operand(x, as_read(product.geometry, name, roundings[name]))
        if name in roundings
        else x
        for name, x in product.operands.items()
    )
    return LayerProduct.unchecked(product.kind, product.geometry, first, second)


def product_noise(
    product: LayerProduct,
    roundings: Mapping[str, Transform],
    exact: Tensor | None = None,
) -> float:
    """Relative error of a product with rounded operands, against float64.

    Args:
        product: with its operands.
        roundings: operand -> what is done to it.
        exact: the product in float64, if it is there already.

    Example:
        >>> from elision.operands import Project
        >>> from elision.products import MatmulGeometry, Product
        >>> x, w = torch.tensor([[1.0, 0.26]]), torch.tensor([[1.0, 1.0]])
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 2, 1), x, w)
        >>> thirds = Project(3, fit="largest")
        >>> round(product_noise(product, {"input": thirds}), 4)  # 0.26 becomes 1/3
        0.0582
    """
    if exact is None:
        exact = in_float64(product).compute()
    return relative_error(
        in_float64(rounded_product(product, roundings)).compute(), exact
    )


def in_float64(product: LayerProduct) -> LayerProduct:
    """The product of the same operands in float64."""
    first, second = (torch.as_tensor(x).double() for x in product.operands.values())
    return LayerProduct.unchecked(product.kind, product.geometry, first, second)


@dataclass
class NoiseSum:
    """Noise to signal over several calls of a layer: squares add up.

    Attributes:
        signal: sum of squares of the exact results.
        noise: name -> sum of squares of the errors.

    Example:
        >>> found = NoiseSum()
        >>> found.add(torch.tensor([3.0, 4.0]), {"4w": torch.tensor([3.0, 5.0])})
        >>> found.ratio("4w")
        0.2
    """

    signal: float = 0.0
    noise: dict[str, float] = field(default_factory=dict)

    def add(self, exact: Tensor, found: Mapping[str, Tensor]) -> None:
        """Add one call: its exact result and the rounded ones by name."""
        self.signal += float(exact.norm()) ** 2
        for name, values in found.items():
            error = float((values - exact).norm()) ** 2
            self.noise[name] = self.noise.get(name, 0.0) + error

    def ratio(self, name: str) -> float:
        """Norm of the errors over that of the results."""
        return _ratio(math.sqrt(self.noise[name]), math.sqrt(self.signal))


def _ratio(noise: float, signal: float) -> float:
    if signal:
        return noise / signal
    return math.inf if noise else 0.0
