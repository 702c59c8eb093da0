"""The dense engine: torch's own kernels, and the oracle of every other engine."""

import torch

from elision.engines.base import Engine, check_sparse
from elision.products import Geometry, Product

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
        result = geometry.compute(kind, first, second)
        return result if wanted is None else result * (wanted != 0)
