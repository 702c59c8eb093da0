"""Running a loop program, statement by statement, on exact numbers: the oracle.

The interpreter walks the program as it is written and knows nothing of how the proofs
are made. Values are Python integers, or :class:`Formal` sums, in which every element of
an input stands for itself: two programs with equal formal results compute the same at
these sizes whatever the input.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from elision.verify.program import (
    Assign,
    Binary,
    Call,
    Element,
    Expression,
    Guard,
    Name,
    Node,
    Number,
    Program,
    ProgramError,
)

__all__ = ["EXACT", "Formal", "TooLong", "formal_input", "hashed", "index_value", "run"]

Place = tuple[str, tuple[int, ...]]

#: A Mersenne prime: sums of products of random residues differ with certainty
#: 1 - degree/p (Schwartz and Zippel).
PRIME = 2**31 - 1

#: Functions of values that integers evaluate exactly.
EXACT: dict[str, Callable[..., Any]] = {
    "relu": lambda x: max(x, 0),
    "abs": abs,
    "min": min,
    "max": max,
}


class TooLong(Exception):
    """A run took more statements than were allowed."""


def hashed(function: str, *values: Any) -> int:
    """A value of a function of which nothing is known but its name."""
    text = repr((function, *values)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) % PRIME


class Formal:
    """A sum of products of input elements and of function values, in normal form.

    Args:
        terms: integer coefficient, not 0, of each sorted tuple of factors.

    Example:
        >>> a, b = (formal_input(name, (0,)) for name in "ab")
        >>> a * b + b * a - a * 0 == 2 * (b * a)
        True
    """

    __slots__ = ("terms",)

    def __init__(self, terms: dict[tuple[Any, ...], int]) -> None:
        self.terms = terms

    @staticmethod
    def of(value: "Formal | int") -> "Formal":
        """A value as a formal sum: an integer has no factors."""
        if isinstance(value, Formal):
            return value
        return Formal({(): value} if value else {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Formal) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __repr__(self) -> str:
        return repr(sorted(self.terms.items(), key=repr))

    def __add__(self, other: "Formal | int") -> "Formal":
        terms = dict(self.terms)
        for factors, c in self.of(other).terms.items():
            terms[factors] = terms.get(factors, 0) + c
            if not terms[factors]:
                del terms[factors]
        return Formal(terms)

    def __mul__(self, other: "Formal | int") -> "Formal":
        terms: dict[tuple[Any, ...], int] = {}
        for mine, c in self.terms.items():
            for theirs, d in self.of(other).terms.items():
                both = tuple(sorted((*mine, *theirs), key=_order))
                terms[both] = terms.get(both, 0) + c * d
        return Formal({factors: c for factors, c in terms.items() if c})

    def __sub__(self, other: "Formal | int") -> "Formal":
        return self + self.of(other) * -1

    def __rsub__(self, other: int) -> "Formal":
        return self.of(other) - self

    __radd__ = __add__
    __rmul__ = __mul__


def _order(factor: tuple[str, Any]) -> tuple[str, str]:
    return factor[0], repr(factor[1])


def formal_input(array: str, index: tuple[int, ...]) -> Formal:
    """An input element that stands for itself."""
    return Formal({((array, index),): 1})


def formal_function(function: str, *values: Formal | int) -> Formal:
    """A function of formal values, of which nothing is known but its name."""
    return Formal({((function, tuple(map(Formal.of, values))),): 1})


def exact_function(function: str, *values: int) -> int:
    """A function of integers; one that is not in :data:`EXACT` is :func:`hashed`."""
    known = EXACT.get(function)
    return known(*values) if known else hashed(function, *values)


def index_value(expression: Expression, at: Mapping[str, int]) -> int:
    """The integer that an index expression is, loop variables and sizes being given.

    Conditions are 1 and 0. ``//`` and ``%`` round down, ``quotient`` and ``remainder``
    towards zero.
    """
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Name):
        return at[expression.name]
    if isinstance(expression, Binary):
        left = index_value(expression.left, at)
        if expression.operator == "and" and not left:
            return 0
        if expression.operator == "or" and left:
            return 1
        right = index_value(expression.right, at)
        try:
            return int(_INDEX[expression.operator](left, right))
        except ZeroDivisionError:
            raise ProgramError(f"{expression} divides by 0", expression.place) from None
    if isinstance(expression, Call):
        values = [index_value(a, at) for a in expression.arguments]
        if expression.function not in _INDEX_CALLS:
            raise ProgramError(
                f"function {expression.function!r} of indices; known: "
                f"{', '.join(_INDEX_CALLS)}",
                expression.place,
            )
        return int(_INDEX_CALLS[expression.function](*values))
    raise ProgramError(f"{expression} is no index", expression.place)


_INDEX: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "and": lambda a, b: bool(a) and bool(b),
    "or": lambda a, b: bool(a) or bool(b),
}


def _quotient(a: int, b: int) -> int:
    whole = abs(a) // abs(b)
    return whole if (a < 0) == (b < 0) else -whole


_INDEX_CALLS: dict[str, Callable[..., int]] = {
    "min": min,
    "max": max,
    "not": lambda a: not a,
    "quotient": _quotient,
    "remainder": lambda a, b: a - b * _quotient(a, b),
}


def run(
    program: Program,
    sizes: Mapping[str, int],
    read: Callable[[str, tuple[int, ...]], Any],
    function: Callable[..., Any] = exact_function,
    at_most: int = 1_000_000,
) -> dict[Place, Any]:
    """Run a program as it is written.

    Args:
        program: the program.
        sizes: value of every size.
        read: value of an element that was not written before: an input.
        function: value of a function by name and arguments.
        at_most: statements to execute.

    Returns:
        The last value of every element that was written, by array and subscripts.

    Raises:
        TooLong: more statements than ``at_most``.
        ProgramError: an expression outside the class, or a division by 0.

    Example:
        >>> from elision.verify.read import read
        >>> double = read("for i in range(M): y[i] = 2 * x[i]")
        >>> run(double, {"M": 2}, lambda array, index: index[0] + 1)
        {('y', (0,)): 2, ('y', (1,)): 4}
    """
    memory: dict[Place, Any] = {}
    for assign, at in instances(program.body, dict(sizes), [at_most]):
        target = (assign.target.array, subscripts(assign.target, at))

        def load(element: Element, at: Mapping[str, int] = at) -> Any:
            place = (element.array, subscripts(element, at))
            return memory[place] if place in memory else read(*place)

        value = _value(assign.value, load, function)
        if assign.adds:
            value = (memory[target] if target in memory else read(*target)) + value
        memory[target] = value
    return memory


def subscripts(element: Element, at: Mapping[str, int]) -> tuple[int, ...]:
    """The subscripts of an element as integers."""
    return tuple(index_value(i, at) for i in element.indices)


def instances(
    nodes: tuple[Node, ...], at: dict[str, int], left: list[int]
) -> Iterator[tuple[Assign, dict[str, int]]]:
    """The statements in the order of execution, each with its variables and sizes.

    Args:
        nodes: the program's body.
        at: sizes; loop variables are added while a loop runs.
        left: one number, the iterations and statements that may still come.

    Raises:
        TooLong: more came.
    """
    for node in nodes:
        left[0] -= 1
        if left[0] < 0:
            raise TooLong
        if isinstance(node, Assign):
            yield node, at
        elif isinstance(node, Guard):
            if index_value(node.condition, at):
                yield from instances(node.body, at, left)
        else:
            start, stop = index_value(node.start, at), index_value(node.stop, at)
            for value in range(start, stop, node.step):
                at[node.variable] = value
                yield from instances(node.body, at, left)
            at.pop(node.variable, None)


def _value(
    expression: Expression,
    load: Callable[[Element], Any],
    function: Callable[..., Any],
) -> Any:
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Element):
        return load(expression)
    if isinstance(expression, Binary):
        left = _value(expression.left, load, function)
        right = _value(expression.right, load, function)
        if expression.operator == "+":
            return left + right
        return left - right if expression.operator == "-" else left * right
    assert isinstance(expression, Call)
    values = [_value(a, load, function) for a in expression.arguments]
    return function(expression.function, *values)
