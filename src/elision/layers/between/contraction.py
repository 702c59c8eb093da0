"""Calls of ``matmul``, ``einsum`` and their kin as products of matrices.

Each becomes ``X[rows, inner] · W[columns, inner]ᵀ``, or a batch of such products, the
form of a layer's forward product (:class:`~elision.products.MatmulGeometry`); its two
gradients are then the layer's other products.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Contraction", "of_einsum", "of_linear", "of_matmul"]


@dataclass(frozen=True)
class Contraction:
    """A product of two tensors in the form of a layer's.

    Attributes:
        x: ``(rows, inner)``, or ``(batch, rows, inner)`` with a batch above 1.
        w: ``(columns, inner)``, or ``(batch, columns, inner)``.
        shaped: gives the result of the product the shape of the call's.

    Example:
        >>> found = of_matmul(torch.ones(2, 3, 4), torch.ones(4, 5))
        >>> found.x.shape, found.w.shape, found.shaped(found.x @ found.w.mT).shape
        (torch.Size([6, 4]), torch.Size([5, 4]), torch.Size([2, 3, 5]))
    """

    x: Tensor
    w: Tensor
    shaped: Callable[[Tensor], Tensor]


def of_linear(x: Tensor, w: Tensor) -> Contraction | None:
    """``x·wᵀ`` of ``F.linear``, ``x: (..., inner)``, ``w: (columns, inner)``.

    None: no such product; torch says what is wrong with it.
    """
    if w.dim() != 2:
        return None
    return of_matmul(x, w.mT)


def of_matmul(a: Tensor, b: Tensor) -> Contraction | None:
    """``a @ b`` by the rules of ``torch.matmul``: vectors, matrices, batches broadcast.

    Rows that meet the same matrix are rows of one product. None: no product.
    """
    if not a.dim() or not b.dim():
        return None
    x = a.unsqueeze(0) if a.dim() == 1 else a
    w = (b.unsqueeze(-1) if b.dim() == 1 else b).mT
    if x.shape[-1] != w.shape[-1]:
        return None
    try:
        batch = torch.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    except RuntimeError:
        return None
    # Without the axis that a vector lacks.
    rows = () if a.dim() == 1 else (x.shape[-2],)
    columns = () if b.dim() == 1 else (w.shape[-2],)
    result = (*batch, *rows, *columns)
    if w.dim() == 2:
        x = x.reshape(-1, x.shape[-1])
    else:
        x, w = (y.expand(*batch, -1, -1).reshape(-1, *y.shape[-2:]) for y in (x, w))
        if x.shape[0] == 1:
            x, w = x[0], w[0]
    return Contraction(x, w, lambda y: y.reshape(result))


def of_einsum(equation: str, a: Tensor, b: Tensor) -> Contraction | None:
    """``einsum(equation, a, b)``, an equation with a sum over axes of both tensors.

    None: another one (a diagonal, no common sum, an axis that is broadcast), or a wrong
    one, of which torch says what is wrong.

    Example:
        >>> found = of_einsum("bqd,bkd->bqk", torch.ones(2, 3, 4), torch.ones(2, 5, 4))
        >>> found.x.shape, found.w.shape
        (torch.Size([2, 3, 4]), torch.Size([2, 5, 4]))
    """
    named = _letters(equation, a.dim(), b.dim())
    if named is None:
        return None
    first, second, out = named
    sizes = dict(zip(first, a.shape, strict=True))
    if any(sizes.get(i, n) != n for i, n in zip(second, b.shape, strict=True)):
        return None
    sizes |= dict(zip(second, b.shape, strict=True))
    inner = [i for i in first if i in second and i not in out]
    if not inner:
        return None
    a, first = _summed(a, first, second + out)
    b, second = _summed(b, second, first + out)
    batch = [i for i in first if i in second and i in out]
    rows = [i for i in first if i not in second]
    columns = [i for i in second if i not in first]

    def matrix(x: Tensor, letters: str, outer: list[str]) -> Tensor:
        x = x.permute([letters.index(i) for i in (*batch, *outer, *inner)])
        shape = [math.prod(sizes[i] for i in part) for part in (batch, outer, inner)]
        return x.reshape(shape if shape[0] > 1 else shape[1:])

    order = [*batch, *rows, *columns]

    def shaped(y: Tensor) -> Tensor:
        y = y.reshape([sizes[i] for i in order])
        return y.permute([order.index(i) for i in out])

    return Contraction(matrix(a, first, rows), matrix(b, second, columns), shaped)


def _summed(x: Tensor, letters: str, elsewhere: str) -> tuple[Tensor, str]:
    """A tensor summed over the axes that nothing else names."""
    own = [n for n, i in enumerate(letters) if i not in elsewhere]
    if not own:
        return x, letters
    return x.sum(own), "".join(i for i in letters if i in elsewhere)


def _letters(equation: str, *dims: int) -> tuple[str, str, str] | None:
    """Names of the axes of two operands and of the result, ellipses spelled out."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(dims):
        return None
    unused = [c for c in map(chr, range(0x100, 0x180)) if c not in equation]
    hidden = [
        d - len(o.replace("...", "")) for o, d in zip(operands, dims, strict=True)
    ]
    if any(
        n < 0 or (n and "..." not in o) for n, o in zip(hidden, operands, strict=True)
    ):
        return None
    # Axes under an ellipsis are aligned at their last one.
    spelled = [
        o.replace("...", "".join(unused[:n][::-1]))
        for o, n in zip(operands, hidden, strict=True)
    ]
    everything = "".join(unused[: max(hidden)][::-1])
    if arrow:
        out = out.replace("...", everything)
    else:
        once = sorted(i for i in "".join(operands) if left.count(i) == 1 and i != ".")
        out = everything + "".join(once)
    first, second = spelled
    if any(len(set(letters)) < len(letters) for letters in (first, second, out)):
        return None
    return (first, second, out) if set(out) <= {*first, *second} else None
