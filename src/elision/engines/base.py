"""The interface of engines: who computes a product on this machine.

An engine computes a :class:`~elision.products.LayerProduct`: it returns what
:meth:`LayerProduct.compute <elision.products.LayerProduct.compute>` would, zeros in
place. A :class:`Hint` names the operand worth treating as sparse, or the part of a
weight gradient that is needed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from elision.products import LayerProduct, Product

__all__ = ["NO_HINT", "Engine", "Hint"]


@dataclass(frozen=True, eq=False)
class Hint:
    """Facts about a product that let an engine leave work out.

    ``sparse`` changes the way to a result, never the result; ``wanted`` sets the rest
    of it to zero.

    Attributes:
        sparse: name of the operand that holds many zeros; None if neither does.
        wanted: for the weight gradient, a tensor of the weight's shape: the result is
            needed where it is not zero and is zero elsewhere. None: everywhere.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 2, 3))
        >>> Hint("weight").check(product)
        >>> Hint("grad_output").check(product)
        Traceback (most recent call last):
        ValueError: sparse='grad_output': the operands of forward are input and weight
    """

    sparse: str | None = None
    wanted: torch.Tensor | None = None

    def check(self, product: LayerProduct) -> None:
        """Raise ValueError unless the hint fits the product.

        Raises:
            ValueError: ``sparse`` is not one of the product's operands, or ``wanted``
                is given for another product than the weight gradient.
        """
        kind = product.kind
        if self.sparse is not None and self.sparse not in kind.operands:
            raise ValueError(
                f"sparse={self.sparse!r}: the operands of {kind.value} are "
                f"{' and '.join(kind.operands)}"
            )
        if self.wanted is not None and kind is not Product.WEIGHT_GRAD:
            raise ValueError(
                f"wanted= is for {Product.WEIGHT_GRAD.value}, not {kind.value}"
            )

    def zeros_of(self, product: LayerProduct) -> torch.Tensor | None:
        """The tensor whose zeros save work: ``wanted``, or the sparse operand."""
        if self.wanted is not None or self.sparse is None:
            return self.wanted
        return product.operands[self.sparse]


#: Both operands dense, the whole result needed.
NO_HINT = Hint()


class Engine(ABC):
    """Computes the products of a layer on this machine.

    Example:
        >>> from elision.products import MatmulGeometry
        >>> class Dense(Engine):
        ...     name = "dense"
        ...     def unavailable(self):
        ...         return None
        ...     def supports(self, product, hint=NO_HINT):
        ...         return product.kind is Product.FORWARD
        ...     def compute(self, product, hint=NO_HINT):
        ...         return product.compute()
        >>> x, weight = torch.eye(2), torch.tensor([[1.0, 2.0]])
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(2, 2, 1), x, weight)
        >>> engine = Dense()
        >>> engine.supports(product), engine.choose(product) is engine
        (True, True)
        >>> engine.compute(product).tolist()
        [[1.0], [2.0]]
    """

    #: Name of the engine, a key of :data:`elision.engines.ENGINES`.
    name: str

    #: Whether zeros can save this engine work; if not, every product is torch's own.
    leaves_zeros_out: bool = True

    @abstractmethod
    def unavailable(self) -> str | None:
        """The reason why this engine cannot be used here, in one line; None if it can."""

    @abstractmethod
    def supports(self, product: LayerProduct, hint: Hint = NO_HINT) -> bool:
        """Whether the engine has a kernel for a product of this kind and shape.

        Values, dtypes and devices are not read, so the operands may be None.
        """

    def choose(self, product: LayerProduct, hint: Hint = NO_HINT) -> "Engine":
        """The engine that computes this product: this one, or one it delegates to.

        Raises:
            ValueError: the hint does not fit the product (:meth:`Hint.check`).
        """
        hint.check(product)
        return self

    @abstractmethod
    def compute(self, product: LayerProduct, hint: Hint = NO_HINT) -> torch.Tensor:
        """Compute one product.

        Args:
            product: with its operands, as torch tensors.
            hint: where work can be left out.

        Returns:
            ``Y``, ``dX`` or ``dW`` in torch layout and the operands' dtype.

        Raises:
            ValueError: the hint does not fit the product (:meth:`Hint.check`).
        """
