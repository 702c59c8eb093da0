"""The dense engine: torch's own kernels, and the oracle of every other engine."""

import torch

from elision.common.selecting import select
from elision.engines.base import NO_HINT, Engine, Hint
from elision.products import LayerProduct

__all__ = ["TorchEngine"]


class TorchEngine(Engine):
    """Computes every product densely; zeros cost what other values cost.

    Example:
        >>> from elision.products import MatmulGeometry, Product
        >>> x, weight = torch.eye(2), torch.tensor([[1.0, 2.0]])
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(2, 2, 1), x, weight)
        >>> TorchEngine().compute(product)
        tensor([[1.],
                [2.]])
    """

    name = "torch"
    leaves_zeros_out = False

    def unavailable(self) -> None:
        """None: torch is always there."""
        return

    def supports(self, product: LayerProduct, hint: Hint = NO_HINT) -> bool:
        """True: every product of every layer."""
        return True

    def compute(self, product: LayerProduct, hint: Hint = NO_HINT) -> torch.Tensor:
        """Compute one product densely; see :meth:`Engine.compute`."""
        hint.check(product)
        result = product.geometry.compute(product.kind, product.first, product.second)
        return result if hint.wanted is None else select(result, hint.wanted != 0)
