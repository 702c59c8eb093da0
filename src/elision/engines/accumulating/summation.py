"""What is summed: the operands of a product in their order, and where the result goes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from elision.formats.accumulate import Accumulate
from elision.products.terms import TermOrder

__all__ = ["Summation", "Sums"]


@dataclass(frozen=True, eq=False)
class Summation:
    """All ordered sums of one product.

    Attributes:
        order: of the terms.
        a: contiguous float32 operand of the role a.
        b: contiguous float32 operand of the role b, not padded.
        out: contiguous float32 result in torch layout, zero where no sum goes.
        accumulate: how to sum; not torch's own way.
        key: of the random bits of stochastic rounding.

    Example:
        >>> import torch
        >>> from elision.products import Conv2dGeometry, Product
        >>> from elision.products.terms import term_order
        >>> order = term_order(
        ...     Product.FORWARD, Conv2dGeometry(1, 1, 2, 2, 1, 1, padding=1)
        ... )
        >>> x, w, y = (torch.ones(1, 1, n, n) for n in (2, 1, 4))
        >>> Summation(order, w, x, y, Accumulate("fp16")).padded(x).shape
        torch.Size([1, 1, 4, 4])
    """

    order: TermOrder
    a: Tensor
    b: Tensor
    out: Tensor
    accumulate: Accumulate
    key: int = 0

    def padded(self, b: Tensor) -> Tensor:
        """``b``, or what was made of it value by value, with the zeros around it."""
        if not any(self.order.padding):
            return b
        return F.pad(b, self.order.padding).contiguous()


#: A way to compute all ordered sums of a product; writes ``out``.
Sums = Callable[[Summation], None]
