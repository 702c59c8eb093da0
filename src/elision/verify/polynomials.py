"""Index expressions as sums of loop variables times products of sizes."""

from collections.abc import Set

from elision.verify.program import Binary, Expression, Name, Number, names

__all__ = ["monomials"]


def monomials(
    e: Expression, variables: Set[str]
) -> dict[str | None, Expression] | None:
    """The factor of each loop variable in an index, that of None being the rest.

    Args:
        e: the index.
        variables: loop variables; other names are sizes.

    Returns:
        Factors without loop variables; None: the index is no such sum.

    Example:
        >>> from elision.verify.read import read_index
        >>> found = monomials(read_index("T * a + b - 1"), {"a", "b"})
        >>> {name: str(factor) for name, factor in found.items()}
        {'a': 'T', 'b': '1', None: '-1'}
    """
    if not names(e) & variables:
        return {None: e}
    if isinstance(e, Name):
        return {e.name: Number(1)}
    if not isinstance(e, Binary) or e.operator not in "+-*":
        return None
    left, right = monomials(e.left, variables), monomials(e.right, variables)
    if left is None or right is None:
        return None
    if e.operator == "*":
        if right.keys() != {None}:
            left, right = right, left
        if right.keys() != {None}:
            return None
        return {name: _times(factor, right[None]) for name, factor in left.items()}
    sign = Number(1 if e.operator == "+" else -1)
    found = dict(left)
    for name, factor in right.items():
        part = _times(factor, sign)
        found[name] = Binary("+", found[name], part) if name in found else part
    return found


def _times(a: Expression, b: Expression) -> Expression:
    if isinstance(a, Number) and isinstance(b, Number):
        return Number(a.value * b.value)
    if isinstance(a, Number) and a.value == 1:
        return b
    return a if isinstance(b, Number) and b.value == 1 else Binary("*", a, b)
