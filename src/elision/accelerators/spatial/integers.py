"""Exact linear algebra on small integer matrices: no fraction, no float.

A space-time map is integers throughout, and so is its inverse but for one division by the
determinant. Matrices are tuples of rows.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations

__all__ = [
    "Matrix",
    "Vector",
    "adjugate",
    "determinant",
    "dot",
    "kernel",
    "minors",
    "primitive",
]

Vector = tuple[int, ...]
Matrix = tuple[Vector, ...]


def dot(row: Sequence[int], column: Sequence[int]) -> int:
    """Scalar product.

    Example:
        >>> dot((1, 2), (3, -1))
        1
    """
    return sum(a * b for a, b in zip(row, column, strict=True))


@lru_cache(maxsize=65536)
def determinant(matrix: Matrix) -> int:
    """Determinant of a square matrix, by expansion along its first row.

    Example:
        >>> determinant(((1, 0, 0), (0, 1, 0), (1, 1, 1)))
        1
    """
    if not matrix:
        return 1
    return sum(
        (-1) ** column * entry * determinant(_without(matrix, 0, column))
        for column, entry in enumerate(matrix[0])
        if entry
    )


def adjugate(matrix: Matrix) -> Matrix:
    """Integer matrix A with ``A · matrix = determinant · identity``.

    Example:
        >>> adjugate(((2, 1), (1, 1)))
        ((1, -1), (-1, 2))
    """
    size = range(len(matrix))
    return tuple(
        tuple(
            (-1) ** (row + column) * determinant(_without(matrix, column, row))
            for column in size
        )
        for row in size
    )


def _without(matrix: Matrix, row: int, column: int) -> Matrix:
    rows = (line for index, line in enumerate(matrix) if index != row)
    return tuple(line[:column] + line[column + 1 :] for line in rows)


def minors(rows: Matrix) -> Vector:
    """Signed maximal minors of n − 1 rows of length n: the cross product.

    They are orthogonal to every row, and all zero iff the rows are dependent.

    Example:
        >>> minors(((1, 0, 0), (0, 1, 0)))
        (0, 0, 1)
    """
    columns = len(rows) + 1
    sign = (-1) ** (columns - 1)
    return tuple(
        sign
        * (-1) ** column
        * determinant(tuple(row[:column] + row[column + 1 :] for row in rows))
        for column in range(columns)
    )


def primitive(vector: Iterable[int]) -> Vector:
    """The vector divided by the gcd of its entries, its first non-zero one positive.

    Example:
        >>> primitive((0, -4, 2))
        (0, 2, -1)
    """
    vector = tuple(vector)
    common = math.gcd(*vector)
    first = next((entry for entry in vector if entry), 1)
    return tuple(entry // (common or 1) * (1 if first > 0 else -1) for entry in vector)


@lru_cache(maxsize=4096)
def kernel(rows: Matrix, columns: int) -> Matrix:
    """Basis of the lattice of integer vectors that every row maps to zero.

    Columns that share no row are taken apart first, so that a column without an entry
    gives its unit vector and an index ``t·p + δ·r`` gives ``(δ, −t)/gcd(t, δ)`` alone.
    Each vector is primitive with its first non-zero entry positive.

    Args:
        rows: each of length ``columns``.
        columns: their number, also where there is no row.

    Example:
        >>> kernel(((1, 0, 0, 0), (0, 2, 0, 1)), 4)
        ((0, 1, 0, -2), (0, 0, 1, 0))
    """
    found: list[Vector] = []
    for part in _parts(rows, columns):
        own = tuple(
            tuple(row[column] for column in part)
            for row in rows
            if any(row[column] for column in part)
        )
        for vector in _kernel(own, len(part)):
            full = [0] * columns
            for column, entry in zip(part, vector, strict=True):
                full[column] = entry
            found.append(primitive(full))
    return tuple(sorted(found, key=lambda v: next(i for i, e in enumerate(v) if e)))


def _parts(rows: Matrix, columns: int) -> list[list[int]]:
    """Columns in groups, of which no two have an entry in one row."""
    label = list(range(columns))
    for row in rows:
        used = [column for column in range(columns) if row[column]]
        for left, right in combinations(used, 2):
            old, new = label[right], label[left]
            label = [new if each == old else each for each in label]
    groups: dict[int, list[int]] = {}
    for column, each in enumerate(label):
        groups.setdefault(each, []).append(column)
    return list(groups.values())


def _kernel(rows: Matrix, columns: int) -> list[Vector]:
    """Kernel basis by column operations that keep the lattice (Euclid's on each row)."""
    # Columns of the matrix with the identity below it; those that become zero above
    # carry the kernel below.
    work = [
        [row[column] for row in rows]
        + [int(column == other) for other in range(columns)]
        for column in range(columns)
    ]
    free = list(range(columns))
    for row in range(len(rows)):
        while len(active := [c for c in free if work[c][row]]) > 1:
            pivot = min(active, key=lambda c: abs(work[c][row]))
            for column in active:
                if column != pivot:
                    turns = work[column][row] // work[pivot][row]
                    pairs = zip(work[column], work[pivot], strict=True)
                    work[column] = [a - turns * b for a, b in pairs]
        if active:
            free.remove(active[0])
    return [tuple(work[column][len(rows) :]) for column in free]
