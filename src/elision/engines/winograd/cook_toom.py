"""Transforms of Winograd's minimal filtering F(m, r), exact, and their proof.

``m`` outputs of a correlation with ``r`` taps from ``n = m + r − 1`` products (Winograd,
"Arithmetic complexity of computations", 1980; for networks Lavin and Gray, arXiv
1509.09308), made from ``n − 1`` finite points ``p_i`` and infinity by the construction of
Toom and Cook. With ``f_i = Π_{j≠i} (p_i − p_j)``::

    Aᵀ  (m, n):  row o is p_i^o;                 the last column is that of infinity
    G   (n, r):  row i is p_i^a / f_i;           the last row is (0, ..., 0, 1)
    Bᵀ  (n, n):  row i is Π_{j≠i} (x − p_j),     the last row is Π_j (x − p_j),
                 coefficients ascending

    y = Aᵀ [(G w) ⊙ (Bᵀ x)]
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property

import numpy as np

from elision.common.checks import integer

__all__ = ["Matrix", "Proof", "Transforms", "points_of", "transforms"]

#: Rows of rationals.
Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Proof:
    """The outcome of :meth:`Transforms.prove`.

    Attributes:
        equations: how many were evaluated, ``m·r·n``.
        violated: the first that does not hold, as (output, tap, input); None: all hold.

    Example:
        >>> transforms(4, 3).prove()
        Proof(equations=72, violated=None)
    """

    equations: int
    violated: tuple[int, int, int] | None = None

    @property
    def holds(self) -> bool:
        """Whether the transforms compute the correlation, for all real inputs."""
        return self.violated is None


@dataclass(frozen=True)
class Transforms:
    """The three matrices of F(m, r), of exact rationals.

    Attributes:
        outputs: ``m``.
        taps: ``r``.
        inverse: ``Aᵀ``, ``(m, n)``: products to outputs.
        filter: ``G``, ``(n, r)``: taps to factors.
        data: ``Bᵀ``, ``(n, n)``: inputs to factors.

    Example:
        >>> t = transforms(2, 3)
        >>> [[str(value) for value in row] for row in t.filter]
        [['-1', '0', '0'], ['1/2', '1/2', '1/2'], ['1/2', '-1/2', '1/2'], ['0', '0', '1']]
        >>> t.products, t.prove().holds
        (4, True)
    """

    outputs: int
    taps: int
    inverse: Matrix
    filter: Matrix
    data: Matrix

    @property
    def products(self) -> int:
        """``n = m + r − 1``, the multiplications that are not of constants."""
        return self.outputs + self.taps - 1

    def prove(self) -> Proof:
        """Evaluate every equation of the identity, in rationals.

        The correlation is trilinear in inputs, taps and outputs, so that it is computed
        for all real inputs iff for all o, a, b::

            Σ_i Aᵀ[o, i] · G[i, a] · Bᵀ[i, b] = 1 if b = o + a else 0

        The same sums are the coefficients of both gradients, which are its adjoints: one
        proof holds for all three products.
        """
        sizes = (range(self.outputs), range(self.taps), range(self.products))
        count = self.outputs * self.taps * self.products
        for o, a, b in itertools.product(*sizes):
            rows = zip(self.inverse[o], self.filter, self.data, strict=True)
            if sum(c * g[a] * d[b] for c, g, d in rows) != (b == o + a):
                return Proof(count, (o, a, b))
        return Proof(count)

    def with_entry(
        self, matrix: str, row: int, column: int, value: Fraction
    ) -> "Transforms":
        """The transforms with one entry replaced, to see a proof refuse.

        Example:
            >>> wrong = transforms(2, 3).with_entry("filter", 1, 1, Fraction(-1, 2))
            >>> wrong.prove().violated
            (0, 1, 1)
        """
        rows = [list(values) for values in getattr(self, matrix)]
        rows[row][column] = value
        return replace(self, **{matrix: tuple(map(tuple, rows))})

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``Aᵀ``, ``G`` and ``Bᵀ`` in float64."""
        matrices = (self.inverse, self.filter, self.data)
        inverse, taps, data = (np.array(m, dtype=np.float64) for m in matrices)
        return inverse, taps, data


def points_of(count: int) -> tuple[Fraction, ...]:
    """The first ``count`` points: 0, 1, −1, 2, −2, 1/2, −1/2, 3, −3, 1/3, −1/3, ...

    F(2, 3), F(4, 3) and F(6, 3) take those of Lavin's ``wincnn``; the order beyond them is
    this project's choice. Small numbers and their inverses keep powers, and so rounding
    errors, small.
    """
    return tuple(itertools.islice(_points(), count))


def _points() -> Iterator[Fraction]:
    yield Fraction(0)
    yield from (Fraction(1), Fraction(-1))
    for size in itertools.count(2):
        for point in (Fraction(size), Fraction(1, size)):
            yield from (point, -point)


def transforms(
    m: int, r: int, points: Sequence[Fraction | int] | None = None
) -> Transforms:
    """The transforms of F(m, r).

    Args:
        m: outputs of a tile, >= 1.
        r: taps, >= 1.
        points: ``m + r − 2`` different rationals; :func:`points_of` if None.

    Raises:
        ValueError: a size is not a positive integer, or the points are not so many, not
            rational, or not different.

    Example:
        >>> t = transforms(4, 3)
        >>> [str(value) for value in t.filter[3]]
        ['1/24', '1/12', '1/6']
        >>> transforms(2, 3, points=(0, 1, 1))
        Traceback (most recent call last):
        ValueError: transforms(points=(0, 1, 1)): F(2, 3) needs 3 different rationals
    """
    integer("transforms", "m", m)
    integer("transforms", "r", r)
    count = m + r - 2
    if points is None:
        return _made(m, r, points_of(count))
    rational = all(
        isinstance(p, (int, Fraction)) and not isinstance(p, bool) for p in points
    )
    if not rational or len(points) != count or len(set(points)) != count:
        raise ValueError(
            f"transforms(points={tuple(points)!r}): F({m}, {r}) needs {count} different "
            "rationals"
        )
    return _made(m, r, tuple(map(Fraction, points)))


@cache
def _made(m: int, r: int, points: tuple[Fraction, ...]) -> Transforms:
    others = [points[:i] + points[i + 1 :] for i in range(len(points))]
    scales = [
        _product(p - q for q in rest) for p, rest in zip(points, others, strict=True)
    ]
    zero = Fraction(0)
    return Transforms(
        outputs=m,
        taps=r,
        inverse=tuple(
            (*(p**o for p in points), Fraction(o == m - 1)) for o in range(m)
        ),
        filter=(
            *(
                tuple(p**a / f for a in range(r))
                for p, f in zip(points, scales, strict=True)
            ),
            tuple(Fraction(a == r - 1) for a in range(r)),
        ),
        data=(*((*_roots(rest), zero) for rest in others), _roots(points)),
    )


def _product(factors: Iterator[Fraction]) -> Fraction:
    result = Fraction(1)
    for factor in factors:
        result *= factor
    return result


def _roots(points: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x − p), the lowest power first."""
    polynomial = [Fraction(1)]
    for p in points:
        up = [Fraction(0), *polynomial]
        down = [*(-p * c for c in polynomial), Fraction(0)]
        polynomial = [a + b for a, b in zip(up, down, strict=True)]
    return tuple(polynomial)
