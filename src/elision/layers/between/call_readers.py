"""Reading the calls of ``matmul``, ``einsum`` and their kin: which product they compute."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.layers.between.contraction import (
    Contraction,
    of_einsum,
    of_linear,
    of_matmul,
)

__all__ = ["CALLS", "Found", "found_in"]

#: Names of the products that calls compute, as they end a product's name.
CALLS = ("qk", "pv", "matmul", "mm", "bmm", "einsum", "linear", "addmm", "baddbmm")

#: What a call computes: a name, the product, and what is left to do to its result.
Found = tuple[str, Contraction, Callable[[Tensor], Tensor]]


def found_in(func: Any, args: Any, kwargs: Any) -> Found | None:
    """The product that a call computes.

    None: the function computes none, or the call has an argument that no product has.
    """
    read = _READERS.get(func)
    if read is None:
        return None
    try:
        bound = _signature(read).bind(*args, **kwargs)
    except TypeError:
        return None
    return read(*bound.args, **bound.kwargs)


#: Asked at every call; there are as many as readers.
_signature = functools.cache(inspect.signature)


def _same(y: Tensor) -> Tensor:
    return y


def _matmul(input: Tensor, other: Tensor) -> Found | None:
    return _plain("matmul", input, other)


def _rmatmul(input: Tensor, other: Tensor) -> Found | None:
    return _plain("matmul", other, input)


def _mm(input: Tensor, mat2: Tensor) -> Found | None:
    return _plain("mm", input, mat2)


def _bmm(input: Tensor, mat2: Tensor) -> Found | None:
    return _plain("bmm", input, mat2)


def _plain(what: str, a: Any, b: Any) -> Found | None:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return None
    product = of_matmul(a, b)
    return None if product is None else (what, product, _same)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Found | None:
    product = of_linear(input, weight)
    if product is None:
        return None
    return "linear", product, _same if bias is None else lambda y: y + bias


def _einsum(equation: Any, *operands: Any) -> Found | None:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        return None
    product = of_einsum(equation, *operands)
    return None if product is None else ("einsum", product, _same)


def _added(what: str) -> Callable[..., Found | None]:
    def read(
        input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
    ) -> Found | None:
        product = of_matmul(a, b)
        if product is None:
            return None

        def finished(y: Tensor) -> Tensor:
            y = y if alpha == 1 else alpha * y
            if beta == 0:  # then the input is not read
                return y
            return (input if beta == 1 else beta * input) + y

        return what, product, finished

    return read


_READERS: dict[Any, Callable[..., Found | None]] = {
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    Tensor.__rmatmul__: _rmatmul,
    torch.mm: _mm,
    Tensor.mm: _mm,
    torch.bmm: _bmm,
    Tensor.bmm: _bmm,
    torch.einsum: _einsum,
    F.linear: _linear,
    torch.addmm: _added("addmm"),
    Tensor.addmm: _added("addmm"),
    torch.baddbmm: _added("baddbmm"),
    Tensor.baddbmm: _added("baddbmm"),
}
