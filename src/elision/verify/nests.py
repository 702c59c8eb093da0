"""Programs of a product's loop nest: as it stands, tiled, reordered, or on an array.

A nest is a box of loops around ``out[...] += a[...] * b[...]``. What the schedule of an
accelerator or a compiler does to it becomes loops again, so that
:func:`~elision.verify.equivalent` can say whether the product is still computed.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import gcd
from typing import Any, Protocol

from elision.verify.program import (
    Assign,
    Binary,
    Call,
    Element,
    Expression,
    Guard,
    Loop,
    Name,
    Node,
    Number,
    Program,
    ProgramError,
    names,
)
from elision.verify.read import read_index

__all__ = ["Nest", "program_of"]

#: An index of an access: text, or a coefficient for every loop and an offset.
Index = str | tuple[Sequence[int], int]


class Nest(Protocol):
    """A loop nest, such as the spatial arrays' ``LoopNest``.

    Attributes:
        loops: extents by loop, the outermost first: integers, or index expressions of
            sizes as text.
        accesses: by tensor, its indices: texts such as ``"2*p + r - 1"``, or an object
            with ``rows`` (a coefficient for every loop), ``offset`` and ``shape``, where
            a place outside of the shape is padding and is skipped.
        output: the tensor that is written.

    Example:
        >>> from types import SimpleNamespace
        >>> nest = SimpleNamespace(
        ...     loops={"i": "M", "k": "K"},
        ...     accesses={"A": ("i", "k"), "x": ("k",), "y": ("i",)},
        ...     output="y",
        ... )
        >>> print(program_of(nest, tiles={"k": 4}))
        for i in range(0, M):
            y[i] = 0
        for i in range(0, M):
            for k_o in range(0, (K + 3) // 4):
                for k_i in range(0, 4):
                    if ((4 * k_o) + k_i) < K:
                        y[i] += (A[i, ((4 * k_o) + k_i)] * x[((4 * k_o) + k_i)])
    """

    @property
    def loops(self) -> Mapping[str, Any]: ...  # noqa: D102 - above

    @property
    def accesses(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def output(self) -> str: ...  # noqa: D102


def program_of(
    nest: Nest,
    *,
    tiles: Mapping[str, int] | None = None,
    order: Sequence[str] | None = None,
    space: Sequence[Sequence[int]] | None = None,
    time: Sequence[int] | None = None,
    guards: Iterable[str] = (),
    extents: Mapping[str, str] | None = None,
) -> Program:
    """A nest as a program, initialisation of the output included.

    Args:
        nest: loops, accesses and output.
        tiles: by loop, the size of a tile: loop ``l`` becomes ``l_o`` over tiles and
            ``l_i`` in them, with a guard for the rest.
        order: all loops of the program, the outermost first; default: as they stand,
            inner loops of tiles innermost.
        space: rows S of a space-time map, one coefficient a loop. The program then runs
            over cycles ``t`` and elements ``x0``, ``x1``, ..., and computes the iteration
            of an element and a cycle from the inverse of the map where it has one.
        time: row λ of the map.
        guards: conditions on the loops under which the statement runs.
        extents: names of sizes in place of the extents of loops: the program for all
            sizes. Only for tensors whose padding does not depend on them.

    Raises:
        ProgramError: a tile, order or extent of an unknown loop, an order that leaves a
            loop out, space without time, or a row of another length.

    Example:
        >>> from types import SimpleNamespace
        >>> from elision.verify import equivalent
        >>> nest = SimpleNamespace(
        ...     loops={"i": "M", "j": "N", "k": "K"},
        ...     accesses={"A": ("i", "k"), "B": ("k", "j"), "C": ("i", "j")},
        ...     output="C",
        ... )
        >>> array = program_of(nest, space=[(0, 0, 1), (0, 1, 0)], time=(1, 1, 1))
        >>> print(equivalent(array, program_of(nest)))
        proved for all sizes, sums in the same order
    """
    loops = {
        name: _index((extents or {}).get(name, extent))
        for name, extent in nest.loops.items()
    }
    for what, given in (("tile", tiles), ("extent", extents)):
        for name in given or ():
            _known(what, name, loops)
    conditions = [read_index(g) for g in guards]
    statement, inside = _statement(nest, list(loops), extents or {})
    conditions += inside
    clear = _clear(nest, statement, loops)
    if space is not None or time is not None:
        if space is None or time is None or tiles or order:
            raise ProgramError(
                "a space-time map has rows of space and a row of time, and the order of "
                "the loops; give both, and neither tiles nor an order"
            )
        return _mapped(clear, statement, conditions, loops, [*space, time])
    boxes = dict(loops)
    values: dict[str, Expression] = {}
    for name, size in (tiles or {}).items():
        if not isinstance(size, int) or size < 1:
            raise ProgramError(f"tile of loop {name}: {size!r}; allowed: at least 1")
        outer, inner = f"{name}_o", f"{name}_i"
        whole = Binary("+", Binary("*", Number(size), Name(outer)), Name(inner))
        values[name] = whole
        boxes[outer] = _ceiling(boxes.pop(name), size)
        boxes[inner] = Number(size)
        conditions.append(Binary("<", Name(name), loops[name]))
    if order is None:
        outer = [f"{n}_o" if n in values else n for n in loops]
        order = [*outer, *(f"{n}_i" for n in loops if n in values)]
    if sorted(order) != sorted(boxes):
        raise ProgramError(
            f"order {', '.join(order)}; wanted every loop once: {', '.join(boxes)}"
        )
    body = _guarded(statement, conditions, values)
    for name in reversed(order):
        body = Loop(name, Number(0), boxes[name], 1, (body,))
    return Program((*clear, body))


def _known(what: str, name: str, loops: Mapping[str, Any]) -> None:
    if name not in loops:
        raise ProgramError(f"{what} of loop {name!r}; known: {', '.join(loops)}")


def _index(value: Any) -> Expression:
    return read_index(value) if isinstance(value, str) else Number(int(value))


def _ceiling(extent: Expression, size: int) -> Expression:
    if isinstance(extent, Number):
        return Number(-(-extent.value // size))
    if size == 1:
        return extent
    return Binary("//", Binary("+", extent, Number(size - 1)), Number(size))


def _sum(row: Sequence[int], variables: Sequence[str], offset: int) -> Expression:
    """Coefficients times variables, and an offset."""
    found: Expression | None = None
    parts = [(f, Name(n)) for f, n in zip(row, variables, strict=True) if f]
    # What is added comes first, so that a sum opens with no sign.
    for factor, name in sorted(parts, key=lambda part: part[0] < 0):
        size = abs(factor)
        part = name if size == 1 else Binary("*", Number(size), name)
        if found is not None:
            found = Binary("+" if factor > 0 else "-", found, part)
        else:
            found = part if factor > 0 else Binary("*", Number(factor), name)
    if found is None:
        return Number(offset)
    if not offset:
        return found
    return Binary("+" if offset > 0 else "-", found, Number(abs(offset)))


def _statement(
    nest: Nest, loops: list[str], extents: Mapping[str, str]
) -> tuple[Assign, list[Expression]]:
    """The statement, and the conditions under which no operand lies in padding."""
    elements: dict[str, Element] = {}
    conditions: list[Expression] = []
    for tensor, access in nest.accesses.items():
        if not hasattr(access, "rows"):
            indices = [_index(i) for i in access]
            for name in sorted(names(*indices) - set(loops)):
                raise ProgramError(
                    f"access of {tensor}: unknown loop {name!r}; known: {', '.join(loops)}"
                )
            elements[tensor] = Element(tensor, tuple(indices))
            continue
        indices = []
        rows = zip(
            access.rows, access.offset, access.shape or access.offset, strict=True
        )
        for row, offset, size in rows:
            if len(row) != len(loops):
                raise ProgramError(
                    f"access of {tensor}: {len(row)} coefficients for {len(loops)} loops"
                )
            index = _sum(row, loops, offset)
            indices.append(index)
            # A loop by itself stays within; only what is added up can leave the tensor.
            plain = offset == 0 and sorted(row)[-1:] == [1] and sum(map(abs, row)) == 1
            if access.shape is not None and not plain:
                if extents.keys() & names(index):
                    raise ProgramError(
                        f"access of {tensor}: {index} may lie in padding, whose size "
                        f"{size} does not follow the extents that are given"
                    )
                conditions.append(_between(index, Number(size)))
        elements[tensor] = Element(tensor, tuple(indices))
    target = elements.pop(nest.output)
    value: Expression | None = None
    for element in elements.values():
        value = element if value is None else Binary("*", value, element)
    assert value is not None
    return Assign(target, value, adds=True), conditions


def _between(index: Expression, stop: Expression) -> Expression:
    return Binary("and", Binary(">=", index, Number(0)), Binary("<", index, stop))


def _clear(
    nest: Nest, statement: Assign, loops: Mapping[str, Expression]
) -> tuple[Node, ...]:
    """Loops that set the output to 0, its shape being known or made up by plain loops."""
    shape = getattr(nest.accesses[nest.output], "shape", None)
    target = statement.target
    boxes: list[tuple[str, Expression]] = []
    for n, index in enumerate(target.indices):
        if isinstance(index, Name):
            boxes.append((index.name, loops[index.name]))
        elif shape is not None:
            boxes.append((f"z{n}", Number(shape[n])))
        else:
            raise ProgramError(
                f"output {nest.output}: index {index} is no loop; give its shape"
            )
    indices = tuple(Name(name) for name, _ in boxes)
    body: Node = Assign(Element(target.array, indices), Number(0))
    for name, extent in reversed(boxes):
        body = Loop(name, Number(0), extent, 1, (body,))
    return (body,)


def _guarded(
    statement: Assign,
    conditions: list[Expression],
    values: Mapping[str, Expression],
) -> Node:
    """A statement under conditions, with expressions in place of some loops."""
    target = _put(statement.target, values)
    assert isinstance(target, Element)
    body: Node = Assign(target, _put(statement.value, values), statement.adds)
    if conditions:
        whole = conditions[0]
        for condition in conditions[1:]:
            whole = Binary("and", whole, condition)
        body = Guard(_put(whole, values), (body,))
    return body


def _put(e: Expression, values: Mapping[str, Expression]) -> Expression:
    if isinstance(e, Name):
        return values.get(e.name, e)
    if isinstance(e, Binary):
        return Binary(e.operator, _put(e.left, values), _put(e.right, values))
    if isinstance(e, Call):
        return Call(e.function, tuple(_put(a, values) for a in e.arguments))
    if isinstance(e, Element):
        return Element(e.array, tuple(_put(i, values) for i in e.indices))
    return e


def _mapped(
    clear: tuple[Node, ...],
    statement: Assign,
    conditions: list[Expression],
    loops: Mapping[str, Expression],
    rows: list[Sequence[int]],
) -> Program:
    """The program over cycles and elements of an array."""
    for row in rows:
        if len(row) != len(loops):
            raise ProgramError(
                f"row {tuple(row)} of the map: {len(row)} coefficients for "
                f"{len(loops)} loops: {', '.join(loops)}"
            )
    variables = [*(f"x{n}" for n in range(len(rows) - 1)), "t"]
    body: Node
    inverse = _adjugate(rows) if len(rows) == len(loops) else None
    if inverse is not None and inverse[0]:
        determinant, adjugate = inverse
        values, whole = {}, []
        for name, row in zip(loops, adjugate, strict=True):
            shared = gcd(determinant, *row)
            shared = shared if determinant > 0 else -shared
            divisor = determinant // shared
            index = _sum([a // shared for a in row], variables, 0)
            if divisor > 1:
                # Elements work in every so many cycles only.
                remainder = Binary("%", index, Number(divisor))
                whole.append(Binary("==", remainder, Number(0)))
                index = Binary("//", index, Number(divisor))
            values[name] = index
        inside = [_between(Name(n), extent) for n, extent in loops.items()]
        body = _guarded(statement, [*whole, *inside, *conditions], values)
    else:
        # Every iteration whose element and cycle these are.
        here: list[Expression] = [
            Binary("==", _sum(row, list(loops), 0), Name(v))
            for row, v in zip(rows, variables, strict=True)
        ]
        body = _guarded(statement, [*here, *conditions], {})
        for name in reversed(list(loops)):
            body = Loop(name, Number(0), loops[name], 1, (body,))
    for row, v in reversed([*zip(rows, variables, strict=True)][:-1]):
        body = Loop(v, *_span(row, loops), 1, (body,))
    return Program((*clear, Loop("t", *_span(rows[-1], loops), 1, (body,))))


def _span(
    row: Sequence[int], loops: Mapping[str, Expression]
) -> tuple[Expression, Expression]:
    """Least value of a row times the loops, and one more than the largest."""
    low: Expression = Number(0)
    high: Expression = Number(1)
    for factor, extent in zip(row, loops.values(), strict=True):
        if factor:
            last: Expression = Binary("-", extent, Number(1))
            part = last if factor == 1 else Binary("*", Number(factor), last)
            if factor > 0:
                high = Binary("+", high, part)
            else:
                low = Binary("+", low, part)
    return low, high


def _adjugate(rows: list[Sequence[int]]) -> tuple[int, list[list[int]]]:
    """Determinant and adjugate of a square integer matrix."""
    size = len(rows)

    def minor(matrix: list[list[int]], row: int, column: int) -> list[list[int]]:
        return [
            [a for c, a in enumerate(line) if c != column]
            for r, line in enumerate(matrix)
            if r != row
        ]

    def determinant(matrix: list[list[int]]) -> int:
        if not matrix:
            return 1
        return sum(
            (-1) ** c * a * determinant(minor(matrix, 0, c))
            for c, a in enumerate(matrix[0])
            if a
        )

    whole = [list(row) for row in rows]
    adjugate = [
        [(-1) ** (r + c) * determinant(minor(whole, c, r)) for c in range(size)]
        for r in range(size)
    ]
    return determinant(whole), adjugate
