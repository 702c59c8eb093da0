"""Loop programs as data: affine loops, guards, and statements on arrays.

A program is a list of nodes. A :class:`Loop` runs its body for the values of an integer;
a :class:`Guard` runs its body where a condition holds; an :class:`Assign` writes one
element of an array, or adds to it. Expressions are numbers, names, elements of arrays,
operators and calls. *Index* expressions (subscripts, bounds, conditions) range over loop
variables and sizes; *values* range over elements of arrays, and a scalar is an array
without subscripts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

__all__ = [
    "Assign",
    "Binary",
    "Call",
    "Element",
    "Expression",
    "Guard",
    "Loop",
    "Name",
    "Node",
    "NotAffine",
    "Number",
    "Place",
    "Program",
    "ProgramError",
    "Statement",
]


class ProgramError(ValueError):
    """A program that cannot be read or lies outside the class that is verified.

    Args:
        message: what was found and what is allowed.
        place: where; None: the program was made by code.
    """

    def __init__(self, message: str, place: "Place | None" = None) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place


class NotAffine(ProgramError):
    """An index expression that is no sum of integers times loop variables and sizes."""


@dataclass(frozen=True)
class Place:
    """A line and a column of a program's text, both counted from one.

    Example:
        >>> str(Place(3, 7))
        'line 3, column 7'
    """

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass(frozen=True)
class Number:
    """An integer.

    Example:
        >>> str(Number(-4))
        '-4'
    """

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Name:
    """A loop variable or a size.

    Example:
        >>> str(Name("i"))
        'i'
    """

    name: str
    place: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Element:
    """An element of an array; a scalar has no subscripts.

    Example:
        >>> str(Element("A", (Name("i"), Number(0))))
        'A[i, 0]'
    """

    array: str
    indices: tuple["Expression", ...] = ()
    place: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        at = ", ".join(map(str, self.indices))
        return f"{self.array}[{at}]" if self.indices else self.array


@dataclass(frozen=True)
class Binary:
    """Two operands and an operator.

    The operators of values are ``+ - *``; those of indices also ``//`` and ``%``, which
    round down, ``< <= > >= == !=``, ``and`` and ``or``.

    Example:
        >>> str(Binary("+", Name("i"), Binary("*", Number(2), Name("j"))))
        '(i + (2 * j))'
    """

    operator: str
    left: "Expression"
    right: "Expression"
    place: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"({self.left} {self.operator} {self.right})"


@dataclass(frozen=True)
class Call:
    """A function.

    One of values may be any function. Those of indices are ``min``, ``max``, ``not``, and
    ``quotient`` and ``remainder``, which round towards zero as C does.

    Example:
        >>> str(Call("relu", (Element("y"),)))
        'relu(y)'
    """

    function: str
    arguments: tuple["Expression", ...]
    place: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


Expression = Number | Name | Element | Binary | Call


@dataclass(frozen=True)
class Assign:
    """A statement: an element of an array becomes a value, or has it added.

    Example:
        >>> str(Assign(Element("y", (Name("i"),)), Element("x"), adds=True))
        'y[i] += x'
    """

    target: Element
    value: Expression
    adds: bool = False
    place: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.target} {'+=' if self.adds else '='} {self.value}"


@dataclass(frozen=True)
class Loop:
    """A loop of one variable from ``start`` towards ``stop``, which it does not reach.

    Attributes:
        variable: name; no loop around has the same one.
        start, stop: index expressions.
        step: distance of neighbouring values, not 0.
        body: nodes.

    Example:
        >>> Loop("i", Number(0), Name("M"), 1, ()).variable
        'i'
    """

    variable: str
    start: Expression
    stop: Expression
    step: int
    body: tuple["Node", ...]
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Guard:
    """A body that runs where a condition on indices holds.

    Example:
        >>> Guard(Binary("<", Name("i"), Name("M")), ()).body
        ()
    """

    condition: Expression
    body: tuple["Node", ...]
    place: Place | None = field(default=None, compare=False)


Node = Assign | Loop | Guard


@dataclass(frozen=True)
class Statement:
    """An :class:`Assign` with what stands around it, in the order of the text.

    Attributes:
        name: ``"S0"``, ``"S1"``, ... in the order of the text.
        assign: the statement.
        around: loops and guards, the outermost first.
        positions: place among its siblings of each of these and of the statement.

    Example:
        >>> [str(s.assign) for s in Program((Assign(Element("y"), Number(0)),)).statements]
        ['y = 0']
    """

    name: str
    assign: Assign
    around: tuple[Loop | Guard, ...]
    positions: tuple[int, ...]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """The loops around, the outermost first."""
        return tuple(node for node in self.around if isinstance(node, Loop))


@dataclass(frozen=True)
class Program:
    """A loop program.

    A name that is neither a loop variable nor an array is a *size*, an unknown integer;
    it is at least 1 unless an assumption bounds it.

    Args:
        body: nodes.
        assumptions: conditions on the sizes.
        extents: extents of the arrays that are declared.

    Raises:
        ProgramError: a loop variable or size stands where a value must, an array has
            different numbers of subscripts, or a variable runs in two nested loops.

    Example:
        >>> loop = Loop("i", Number(0), Name("M"), 1,
        ...             (Assign(Element("y", (Name("i"),)), Number(0)),))
        >>> print(Program((loop,)))
        for i in range(0, M):
            y[i] = 0
        >>> Program((loop,)).sizes
        ('M',)
    """

    body: tuple[Node, ...]
    assumptions: tuple[Expression, ...] = ()
    extents: tuple[tuple[str, tuple[Expression, ...]], ...] = ()

    def __post_init__(self) -> None:
        ranks: dict[str, int] = {}
        for array, extents in self.extents:
            ranks[array] = len(extents)
        for statement in self.statements:
            _check_loops(statement)
            for element in (statement.assign.target, *elements(statement.assign.value)):
                rank = ranks.setdefault(element.array, len(element.indices))
                if rank != len(element.indices):
                    raise ProgramError(
                        f"{element} has {len(element.indices)} subscripts, elsewhere "
                        f"{element.array} has {rank}",
                        element.place,
                    )
        for statement in self.statements:
            _check_value(statement.assign.value)
        for both in sorted({*self.sizes} & {*ranks}):
            raise ProgramError(
                f"{both!r} is a size in one place and an array or a scalar in another"
            )

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """All statements in the order of the text."""
        found: list[Statement] = []

        def visit(
            nodes: Sequence[Node],
            around: tuple[Loop | Guard, ...],
            positions: tuple[int, ...],
        ) -> None:
            for position, node in enumerate(nodes):
                here = (*positions, position)
                if isinstance(node, Assign):
                    found.append(Statement(f"S{len(found)}", node, around, here))
                else:
                    visit(node.body, (*around, node), here)

        visit(self.body, (), ())
        return tuple(found)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Number of subscripts of every array."""
        found = {array: len(extents) for array, extents in self.extents}
        for s in self.statements:
            for element in (s.assign.target, *elements(s.assign.value)):
                found[element.array] = len(element.indices)
        return found

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """Names of the sizes, sorted."""
        found: set[str] = set()
        for assumption in self.assumptions:
            found |= names(assumption)
        for _, extents in self.extents:
            found.update(*map(names, extents))
        for s in self.statements:
            inside = set(names(*s.assign.target.indices))
            for element in elements(s.assign.value):
                inside |= names(*element.indices)
            for node in s.around:
                inside |= (
                    names(node.start, node.stop)
                    if isinstance(node, Loop)
                    else names(node.condition)
                )
            found |= inside - {loop.variable for loop in s.loops}
        return tuple(sorted(found))

    @cached_property
    def written(self) -> tuple[str, ...]:
        """Arrays that are written, in the order of the text."""
        return tuple(dict.fromkeys(s.assign.target.array for s in self.statements))

    @cached_property
    def results(self) -> tuple[str, ...]:
        """Arrays that are written and that no statement reads for another array."""
        read = {
            element.array
            for s in self.statements
            for element in elements(s.assign.value)
            if element.array != s.assign.target.array
        }
        return tuple(a for a in self.written if a not in read)

    def __str__(self) -> str:
        lines = [f"assume {_bare(a)}" for a in self.assumptions]

        def visit(nodes: Sequence[Node], depth: int) -> None:
            for node in nodes:
                pad = "    " * depth
                if isinstance(node, Assign):
                    lines.append(f"{pad}{node}")
                    continue
                if isinstance(node, Loop):
                    step = f", {node.step}" if node.step != 1 else ""
                    head = f"for {node.variable} in range({_bare(node.start)}, "
                    lines.append(f"{pad}{head}{_bare(node.stop)}{step}):")
                else:
                    lines.append(f"{pad}if {_bare(node.condition)}:")
                visit(node.body, depth + 1)

        visit(self.body, 0)
        return "\n".join(lines)


def _bare(expression: Expression) -> str:
    """An expression without the outermost parentheses."""
    text = str(expression)
    return text[1:-1] if isinstance(expression, Binary) else text


def elements(*expressions: Expression) -> Iterator[Element]:
    """The elements of arrays that values read, in the order of the text."""
    for expression in expressions:
        if isinstance(expression, Element):
            yield expression
        elif isinstance(expression, Binary):
            yield from elements(expression.left, expression.right)
        elif isinstance(expression, Call):
            yield from elements(*expression.arguments)


def names(*expressions: Expression) -> set[str]:
    """The loop variables and sizes in index expressions."""
    found: set[str] = set()
    for expression in expressions:
        if isinstance(expression, Name):
            found.add(expression.name)
        elif isinstance(expression, Binary):
            found |= names(expression.left, expression.right)
        elif isinstance(expression, Call):
            found |= names(*expression.arguments)
        elif isinstance(expression, Element):
            raise ProgramError(
                f"{expression} is an element of an array, which no subscript, bound or "
                "condition may read; allowed: loop variables, sizes and integers",
                expression.place,
            )
    return found


def _check_loops(statement: Statement) -> None:
    seen: set[str] = set()
    for loop in statement.loops:
        if loop.variable in seen:
            raise ProgramError(
                f"loop variable {loop.variable!r} runs in a loop around already",
                loop.place,
            )
        seen.add(loop.variable)


def _check_value(value: Expression) -> None:
    if isinstance(value, Name):
        raise ProgramError(
            f"{value} is a loop variable or a size, where a value is wanted: an element "
            "of an array, a scalar or an integer",
            value.place,
        )
    if isinstance(value, Binary):
        if value.operator not in ("+", "-", "*"):
            raise ProgramError(
                f"operator {value.operator!r} between values; allowed: + - * and "
                "functions of a name",
                value.place,
            )
        _check_value(value.left)
        _check_value(value.right)
    elif isinstance(value, Call):
        for argument in value.arguments:
            _check_value(argument)
