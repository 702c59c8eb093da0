"""What an engine is: who computes a product here.

An engine receives one of the three products of a layer with its operands as they are,
zeros in place, and returns the result that :meth:`LayerProduct.compute
<elision.products.LayerProduct.compute>` would. A hint says which operand is worth
treating as sparse; it never changes the result, only the way to it.
"""

from abc import ABC, abstractmethod

import torch

from elision.products import Geometry, Product

__all__ = ["Engine", "check_sparse"]


class Engine(ABC):
    """Computes the products of a layer on this machine."""

    #: Name by which a person asks for the engine.
    name: str

    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this engine cannot be used here, in one line; None if it can."""

    @abstractmethod
    def supports(self, kind: Product, geometry: Geometry, sparse: str | None) -> bool:
        """Whether the engine has a way of its own for this product.

        Args:
            kind: which of the three products.
            geometry: shape of the layer.
            sparse: name of the operand that holds many zeros; None if neither does.
        """

    def choose(
        self,
        kind: Product,
        geometry: Geometry,
        first: torch.Tensor,
        second: torch.Tensor,
        *,
        sparse: str | None = None,
        wanted: torch.Tensor | None = None,
    ) -> "Engine":
        """The engine that computes this product: this one, or one it leaves it to.

        Arguments and errors are those of :meth:`product`.
        """
        del geometry, first, second
        check_sparse(kind, sparse, wanted)
        return self

    @abstractmethod
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
        """Compute one product.

        Args:
            kind: which of the three products.
            geometry: shape of the layer.
            first: operand named ``kind.operands[0]``, torch layout.
            second: operand named ``kind.operands[1]``, torch layout.
            sparse: name of the operand that holds many zeros; None if neither does.
            wanted: for the weight gradient, a tensor of the weight's shape: the result
                is needed where it is not zero and is zero elsewhere. None: everywhere.

        Returns:
            ``Y``, ``dX`` or ``dW`` in torch layout and the operands' dtype.

        Raises:
            ValueError: ``sparse`` is not one of the product's operands, or ``wanted``
                is given for another product than the weight gradient.
        """


def check_sparse(
    kind: Product, sparse: str | None, wanted: torch.Tensor | None
) -> None:
    """Raise ValueError if the hints do not fit the product (see :class:`Engine`)."""
    if sparse is not None and sparse not in kind.operands:
        raise ValueError(
            f"sparse={sparse!r}: the operands of {kind.value} are "
            f"{' and '.join(kind.operands)}"
        )
    if wanted is not None and kind is not Product.WEIGHT_GRAD:
        raise ValueError(
            f"wanted= is for {Product.WEIGHT_GRAD.value}, not {kind.value}"
        )
