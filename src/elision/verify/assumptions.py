"""What a program assumes of its sizes."""

from elision.verify.program import Binary, Expression, Name, Number, names

__all__ = ["is_bound"]


def is_bound(e: Expression) -> set[str]:
    """The sizes that an assumption bounds by inequalities of their own."""
    if isinstance(e, Binary) and e.operator == "and":
        return is_bound(e.left) | is_bound(e.right)
    if isinstance(e, Binary) and e.operator in ("<", "<=", ">", ">=", "=="):
        sides = {type(e.left), type(e.right)}
        return names(e) if sides == {Name, Number} else set()
    return set()
