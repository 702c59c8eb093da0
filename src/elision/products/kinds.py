"""The three products of a training step and the operands that each reads.

A layer with input ``X``, weight ``W`` and output ``Y`` computes, in one step of
training, three products of two operands each (``G`` is the gradient of the loss with
respect to ``Y``)::

    FORWARD       Y  = X · W     operands: input,       weight
    INPUT_GRAD    dX = G · Wᵀ    operands: grad_output, weight
    WEIGHT_GRAD   dW = G · X     operands: grad_output, input

where ``·`` is a convolution or a matrix product. Everything else in the library is a
statement about these products.
"""

import enum

__all__ = ["OPERANDS", "Product"]


#: The three tensors that the products read, in the order a layer meets them.
OPERANDS = ("input", "weight", "grad_output")


class Product(enum.Enum):
    """One of the three products of a layer's training step.

    Example:
        >>> Product.INPUT_GRAD.operands, Product.INPUT_GRAD.absent
        (('grad_output', 'weight'), 'input')
    """

    FORWARD = "forward"
    INPUT_GRAD = "input_grad"
    WEIGHT_GRAD = "weight_grad"

    @property
    def operands(self) -> tuple[str, str]:
        """Names of the first and the second operand."""
        return _OPERANDS_OF[self]

    @property
    def absent(self) -> str:
        """Name of the tensor that the product does not read: its result's shape."""
        return next(name for name in OPERANDS if name not in self.operands)


_OPERANDS_OF = {
    Product.FORWARD: ("input", "weight"),
    Product.INPUT_GRAD: ("grad_output", "weight"),
    Product.WEIGHT_GRAD: ("grad_output", "input"),
}
