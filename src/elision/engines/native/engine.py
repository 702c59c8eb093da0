"""The native engine: products with one sparse operand, by this project's C++ kernels."""

import math

import torch

from elision.engines.base import Engine, check_sparse
from elision.engines.native import library
from elision.engines.torch_engine import TorchEngine
from elision.products import Conv2dGeometry, Geometry, Product

__all__ = ["NativeEngine"]

_WAYS = {
    (Product.FORWARD, "weight"),
    (Product.INPUT_GRAD, "weight"),
    (Product.WEIGHT_GRAD, "input"),
    (Product.WEIGHT_GRAD, "grad_output"),
}


class NativeEngine(Engine):
    """Leaves out the zeros of a sparse weight, input or gradient.

    Float32 on the CPU. Anything it has no way for (other dtypes, grouped convolutions, a
    sparse gradient in the input gradient) and operands that hold an infinity or a NaN,
    which a zero would have spread, are computed densely by torch.
    """

    name = "native"

    def __init__(self) -> None:
        self._dense = TorchEngine()

    def unavailable(self) -> str | None:
        """Why the kernels cannot be used here; the first call builds them."""
        return library.unavailable()

    def supports(self, kind: Product, geometry: Geometry, sparse: str | None) -> bool:
        """Ungrouped layers, for the pairs of product and sparse operand listed above."""
        grouped = isinstance(geometry, Conv2dGeometry) and geometry.groups > 1
        return (kind, sparse) in _WAYS and not grouped

    def product(
        self,
        kind: Product,
        geometry: Geometry,
        first: torch.Tensor,
        second: torch.Tensor,
        *,
        sparse: str | None = None,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute one product; see :meth:`Engine.product`."""
        check_sparse(kind, sparse, wanted)
        floats = all(
            t.dtype == torch.float32 and t.device.type == "cpu" for t in (first, second)
        )
        possible = wanted is not None or self.supports(kind, geometry, sparse)
        grouped = isinstance(geometry, Conv2dGeometry) and geometry.groups > 1
        if floats and possible and not grouped and self.unavailable() is None:
            conv = library.as_conv(geometry)
            shaped = (
                value.detach().reshape(conv.shape_of(name))
                for name, value in zip(kind.operands, (first, second), strict=True)
            )
            result = _product(kind, conv, *shaped, sparse=sparse, wanted=wanted)
            if result is not None:
                return result.reshape(geometry.shape_of(kind.absent))
        return self._dense.product(
            kind, geometry, first, second, sparse=sparse, wanted=wanted
        )


def _product(
    kind: Product,
    conv: Conv2dGeometry,
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    sparse: str | None,
    wanted: torch.Tensor | None,
) -> torch.Tensor | None:
    """The product in the blocked layout; None if an operand is not finite."""
    dense, finite = library.to_blocked(first)
    if not finite:
        return None
    if kind is Product.WEIGHT_GRAD:
        x, finite = library.to_blocked(second)
        if not finite:
            return None
        if wanted is not None:
            weights = library.Weights(conv)
            mask = (wanted != 0).to(torch.float32).reshape(conv.shape_of("weight"))
            weights.compress(mask, input_grad=False)
            return weights.masked_grad(x, dense)
        return library.weight_grad(conv, x, dense, sparse=sparse or "input")[0]
    if not math.isfinite(second.sum().item()):
        return None
    weights = library.Weights(conv)
    weights.compress(second, input_grad=kind is Product.INPUT_GRAD)
    if kind is Product.FORWARD:
        return library.from_blocked(weights.forward(dense), conv.batch)
    return library.from_blocked(weights.input_grad(dense), conv.batch)
