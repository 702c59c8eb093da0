"""Products of two tensors that sum over shared indices, as matrix products."""

import math
import string
from collections.abc import Callable, Mapping, Set

from elision.products import MatmulGeometry
from elision.workloads.shapes.onnx_graph.operation import (
    Operation,
    Products,
    Sizes,
    UnreadError,
    misfit,
)

__all__ = ["contraction", "einsum", "gemm", "matmul"]


def contraction(
    first: Mapping[str, int], second: Mapping[str, int], output: Set[str]
) -> MatmulGeometry | None:
    """The matrix product that a contraction is; None: nothing is summed or spread.

    An empty one is none, either.

    An index of both tensors and the output counts independent products, one of both and
    not the output is summed; one of the first tensor and the output counts rows, one of
    the second and the output columns. An index of size 1 is broadcast: it is none of the
    tensor that has it. What is summed within one tensor alone is no product.

    Args:
        first: sizes of X's indices, by name.
        second: sizes of W's indices, by name.
        output: names of the output's indices.

    Raises:
        ValueError: two sizes above 1 of an index differ.

    Example:
        >>> contraction({"b": 8, "m": 3, "k": 4}, {"b": 8, "k": 4, "n": 5}, {*"bmn"})
        MatmulGeometry(rows=3, inner=4, columns=5, batch=8)
        >>> contraction({"b": 8, "m": 3, "k": 4}, {"b": 1, "k": 4, "n": 5}, {*"bmn"})
        MatmulGeometry(rows=24, inner=4, columns=5, batch=1)
    """
    if 0 in (*first.values(), *second.values()):
        return None
    one, other = (
        {name for name, size in sizes.items() if size > 1} for sizes in (first, second)
    )
    shared = one & other
    for name in shared:
        if first[name] != second[name]:
            raise ValueError(f"sizes {first[name]} and {second[name]} do not fit")
    rows, columns = (one - other) & output, (other - one) & output
    inner = shared - output
    summed = (first.keys() & second.keys()) - output
    if not (rows or columns or inner or summed):
        return None
    return MatmulGeometry(
        rows=math.prod(first[name] for name in rows),
        inner=math.prod(first[name] for name in inner),
        columns=math.prod(second[name] for name in columns),
        batch=math.prod(first[name] for name in shared & output),
    )


def matmul(second: int) -> Callable[[Operation], Products]:
    """The reader of ``Y = A · B`` whose ``B`` is input number ``second``."""

    def read(node: Operation) -> Products:
        a, b = node.shape(0), node.shape(second)
        left = "k" if len(a) == 1 else f"{_batches(a)}mk"
        right = "k" if len(b) == 1 else f"{_batches(b)}kn"
        sizes = _matrices(left, a), _matrices(right, b)
        if sizes[0]["k"] != sizes[1]["k"]:
            raise misfit(a, b)
        return _contracted(sizes, {*left, *right} - {"k"}, node, second)

    return read


def _batches(shape: Sizes) -> str:
    """Names of the axes before a matrix, which are matched from the last one on."""
    return string.ascii_uppercase[: len(shape) - 2][::-1]


def _matrices(names: str, shape: Sizes) -> dict[str, int]:
    return dict(zip(names, shape, strict=True))


def gemm(node: Operation) -> Products:
    """``Gemm``, either operand transposed or not; the scalars are no products."""
    a, b = node.shape(0), node.shape(1)
    left = "km" if node.attributes.get("transA") else "mk"
    right = "nk" if node.attributes.get("transB") else "kn"
    if len(a) != 2 or len(b) != 2:
        raise misfit(a, b)
    sizes = _matrices(left, a), _matrices(right, b)
    if sizes[0]["k"] != sizes[1]["k"]:
        raise misfit(a, b)
    return _contracted(sizes, {*"mn"}, node)


def einsum(node: Operation) -> Products:
    """``Einsum`` of two tensors; one alone is moved or summed, not multiplied."""
    equation = node.attributes["equation"].decode().replace(" ", "")
    entries, arrow, result = equation.partition("->")
    if len(node.shapes) > 2:
        raise UnreadError(f"of {len(node.shapes)} tensors")
    if len(node.shapes) < 2:
        return []  # a transposition, a diagonal or a sum
    named = [
        _indices(term, node.shape(position))
        for position, term in enumerate(entries.split(","))
    ]
    if not arrow:  # indices that occur once, and those of the ellipsis
        letters = entries.replace(",", "").replace("...", "")
        output = {name for name in letters if letters.count(name) == 1}
        result = "..." if "..." in entries else ""
    else:
        output = {*result.replace("...", "")}
    if "..." in result:
        output |= {name for sizes in named for name in sizes if name.startswith(".")}
    return _contracted((named[0], named[1]), output, node)


def _indices(term: str, shape: Sizes) -> dict[str, int]:
    """Sizes by index; those of an ellipsis are numbered from the last."""
    before, dots, after = term.partition("...")
    spread = len(shape) - len(before) - len(after) if dots else 0
    names = [*before, *(f".{spread - i}" for i in range(spread)), *after]
    if len(names) != len(shape):
        raise ValueError(f"indices {term!r} do not fit the shape {shape}")
    return dict(zip(names, shape, strict=True))


def _contracted(
    sizes: tuple[Mapping[str, int], Mapping[str, int]],
    output: set[str],
    node: Operation,
    second: int = 1,
) -> Products:
    """The product, with what is constant as its weight."""
    if node.constants[0] and not node.constants[second]:
        sizes = sizes[1], sizes[0]
    found = contraction(*sizes, output)
    return [] if found is None else [("", found)]
