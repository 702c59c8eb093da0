"""The dense engine: torch's own kernels, and the oracle of every other engine."""

import torch
import torch.nn.functional as F

from elision.engines.base import Engine, check_sparse
from elision.products import Conv2dGeometry, Geometry, MatmulGeometry, Product

__all__ = ["TorchEngine"]


class TorchEngine(Engine):
    """Computes every product densely; zeros cost what other values cost."""

    name = "torch"

    def unavailable(self) -> None:
        """Torch is always there."""
        return

    def supports(self, kind: Product, geometry: Geometry, sparse: str | None) -> bool:
        """Every product of every layer."""
        return True

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
        if isinstance(geometry, MatmulGeometry):
            result = _matmul(kind, first, second)
        else:
            result = _conv(kind, geometry, first, second)
        return result if wanted is None else result * (wanted != 0)


def _matmul(kind: Product, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    if kind is Product.FORWARD:
        return F.linear(first, second)
    return first @ second if kind is Product.INPUT_GRAD else first.T @ second


def _conv(
    kind: Product, geometry: Conv2dGeometry, first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    how = (geometry.stride, geometry.padding, geometry.dilation)
    if kind is Product.FORWARD:
        return F.conv2d(first, second, None, *how, geometry.groups)
    gradient = kind is Product.INPUT_GRAD
    absent = first.new_empty(1).expand(geometry.shape_of(kind.absent))
    x, weight = (absent, second) if gradient else (second, absent)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        first,
        x,
        weight,
        None,
        *map(list, how),
        False,
        [0, 0],
        geometry.groups,
        [gradient, not gradient, False],
    )
    return dx if gradient else dw
