"""Loop programs from text: a small subset of C, and of Python.

Both have loops with a constant step, ``if``, and statements ``y[...] = value`` and
``y[...] += value``. C arrays are written ``A[i][k]``, Python's ``A[i, k]`` or ``A[i][k]``.

================  ===============================  ===========================
what              C                                Python
================  ===============================  ===========================
loop              ``for (int i = 0; i < M; ++i)``  ``for i in range(M):``
condition         ``if (i < M && j < N)``          ``if i < M and j < N:``
named integer     ``#define V 4``                  ``V = 4``, outside of loops
named index       ``int h = 2 * i + r;``           ``h = 2 * i + r``
declared extents  ``float A[M][K];``               ``A: [M, K]``
about the sizes   ``assume(K % 4 == 0);``          ``assume K % 4 == 0``
================  ===============================  ===========================

``/`` and ``%`` of C indices round towards zero, ``//`` and ``%`` of Python's down.
"""

import ast
import re
from collections.abc import Callable
from typing import NoReturn

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
    Place,
    Program,
    ProgramError,
    elements,
)

__all__ = ["read", "read_index"]

#: Functions of indices and their numbers of arguments; None: any number from two on.
_OF_INDICES = {"min": None, "max": None, "quotient": 2, "remainder": 2}

#: Operators of C from the loosest to the tightest.
_C_OPERATORS = (
    {"||": "or"},
    {"&&": "and"},
    {"==": "==", "!=": "!="},
    {"<": "<", "<=": "<=", ">": ">", ">=": ">="},
    {"+": "+", "-": "-"},
    {"*": "*", "/": "quotient", "%": "remainder"},
)

_C_TYPES = ("int", "long", "size_t", "float", "double", "bfloat16", "half")
_C_INDEX_TYPES = ("int", "long", "size_t")
_C_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?[fFuUlL]*)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\+\+|--|\+=|-=|\*=|/=|<=|>=|==|!=|&&|\|\||[-+*/%<>=!?:;,(){}\[\]#.&])",
    re.DOTALL,
)


def read(text: str) -> Program:
    """Read a program; which language it is, its loops say.

    Args:
        text: loops and assignments in the subset of C or of Python that the room reads.

    Raises:
        ProgramError: a line outside the subset; the message names the line, the column,
            what stands there and what is allowed.

    Example:
        >>> program = read("for (int i = 0; i < M; ++i) y[i] += a * x[i];")
        >>> print(program)
        for i in range(0, M):
            y[i] += (a * x[i])
        >>> read(str(program)) == program
        True
        >>> read("for i in range(M * N): y[i] = x[T * i]").sizes
        ('M', 'N', 'T')
    """
    is_c = re.search(r"\bfor\s*\(|;\s*$|^\s*#\s*define", text, re.MULTILINE)
    return _C(text).program() if is_c else _Python(text).program()


def read_index(text: str) -> Expression:
    """Read one index expression, with ``//`` and ``%`` rounding down.

    Raises:
        ProgramError: no such expression.

    Example:
        >>> str(read_index("2 * i + k // 4"))
        '((2 * i) + (k // 4))'
    """
    reader = _Python(text)
    match reader.tree.body:
        case [ast.Expr(value=expression)]:
            return reader.index(expression)
    raise ProgramError(f"{text!r} is not an expression of loop variables and sizes")


class _Scope:
    """What the names of a text stand for: integers, indices and loop variables."""

    def __init__(self) -> None:
        self.known: dict[str, Expression] = {}
        self.loops: list[str] = []
        self.assumptions: list[Expression] = []
        self.extents: list[tuple[str, tuple[Expression, ...]]] = []

    def index(self, name: str, place: Place) -> Expression:
        return self.known.get(name, Name(name, place))

    def value(self, name: str, place: Place) -> Expression:
        known = self.known.get(name)
        if isinstance(known, Number):
            return known
        if known is not None or name in self.loops:
            return Name(name, place)
        return Element(name, (), place)

    def integer(self, expression: Expression, what: str, place: Place) -> int:
        value = _folded(expression)
        if value is None:
            raise ProgramError(f"{what} {expression} is not an integer", place)
        return value

    def program(self, body: tuple[Node, ...]) -> Program:
        return Program(body, tuple(self.assumptions), tuple(self.extents))


def _folded(expression: Expression) -> int | None:
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Binary) and expression.operator in "+-*":
        left, right = _folded(expression.left), _folded(expression.right)
        if left is not None and right is not None:
            return {"+": left + right, "-": left - right, "*": left * right}[
                expression.operator
            ]
    return None


def _negated(value: Expression, place: Place) -> Expression:
    if isinstance(value, Number):
        return Number(-value.value)
    return Binary("*", Number(-1), value, place)


def _accumulated(
    target: Element, operator: str, value: Expression, place: Place
) -> Assign:
    """A statement, in which ``x = x + e`` adds as ``x += e`` does."""
    if operator == "-=":
        return Assign(target, _negated(value, place), True, place)
    if operator == "+=":
        return Assign(target, value, True, place)
    if isinstance(value, Binary) and value.operator in ("+", "-"):
        rest = None
        if value.left == target:
            rest = (
                value.right if value.operator == "+" else _negated(value.right, place)
            )
        elif value.right == target and value.operator == "+":
            rest = value.left
        if rest is not None and target not in elements(rest):
            return Assign(target, rest, True, place)
    return Assign(target, value, False, place)


class _Python:
    """Reader of the Python subset, over the syntax tree of the standard library."""

    def __init__(self, text: str) -> None:
        # An indented block, such as a string in code, loses its margin.
        lines = text.expandtabs().splitlines()
        margin = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
        self._margin = margin
        source = "\n".join(x[margin:] for x in lines)
        # "assume" reads better than "assert" and says the same.
        source = re.sub(r"^(\s*)assume\b", r"\1assert", source, flags=re.MULTILINE)
        try:
            self.tree = ast.parse(source)
        except SyntaxError as error:
            place = Place(error.lineno or 1, (error.offset or 1) + margin)
            raise ProgramError(f"not Python: {error.msg}", place) from None
        except (MemoryError, RecursionError, ValueError) as error:
            # Python's parser, of brackets without end; a text with a null character.
            said = str(error) or "nested too deeply"
            raise ProgramError(f"not Python: {said}", Place(1, 1)) from None
        self._scope = _Scope()

    def program(self) -> Program:
        return self._scope.program(self._nodes(self.tree.body))

    def _place(self, node: ast.AST) -> Place:
        return Place(
            getattr(node, "lineno", 1),
            getattr(node, "col_offset", 0) + 1 + self._margin,
        )

    def _refuse(self, node: ast.AST, allowed: str) -> NoReturn:
        text = ast.unparse(node).partition("\n")[0]
        raise ProgramError(f"{text!r} is not read here; {allowed}", self._place(node))

    def _nodes(self, nodes: list[ast.stmt]) -> tuple[Node, ...]:
        return tuple(made for node in nodes for made in self._node(node))

    def _node(self, node: ast.stmt) -> list[Node]:
        scope, place = self._scope, self._place(node)
        if isinstance(node, ast.For):
            return [self._loop(node)]
        if isinstance(node, ast.If):
            condition = self.index(node.test)
            made: list[Node] = [Guard(condition, self._nodes(node.body), place)]
            if node.orelse:
                otherwise = Call("not", (condition,), place)
                made.append(Guard(otherwise, self._nodes(node.orelse), place))
            return made
        if isinstance(node, ast.Assert):
            scope.assumptions.append(self.index(node.test))
            return []
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if not isinstance(node.annotation, (ast.List, ast.Tuple)):
                self._refuse(node, "extents of an array are a list: A: [M, K]")
            extents = tuple(self.index(e) for e in node.annotation.elts)
            scope.extents.append((node.target.id, extents))
            return []
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            return self._assign(node.targets[0], "=", node.value, node)
        if isinstance(node, ast.AugAssign):
            operator = {ast.Add: "+=", ast.Sub: "-="}.get(type(node.op))
            if operator is None:
                self._refuse(node, "allowed: = += -=")
            return self._assign(node.target, operator, node.value, node)
        if isinstance(node, ast.Pass):
            return []
        return self._refuse(node, "allowed: for, if, assume, = and +=")

    def _loop(self, node: ast.For) -> Loop:
        scope, place, call = self._scope, self._place(node), node.iter
        ranged = (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id == "range"
            and 1 <= len(call.args) <= 3
        )
        if not ranged or not isinstance(node.target, ast.Name) or node.orelse:
            self._refuse(node, "a loop is: for i in range(start, stop, step)")
        assert isinstance(call, ast.Call)
        bounds = [self.index(a) for a in call.args]
        if len(bounds) == 1:
            bounds.insert(0, Number(0))
        step = scope.integer(bounds[2], "the step", place) if len(bounds) == 3 else 1
        if step == 0:
            self._refuse(node, "a step is an integer other than 0")
        scope.loops.append(node.target.id)
        body = self._nodes(node.body)
        scope.loops.pop()
        return Loop(node.target.id, bounds[0], bounds[1], step, body, place)

    def _assign(
        self, target: ast.expr, operator: str, value: ast.expr, node: ast.stmt
    ) -> list[Node]:
        scope, place = self._scope, self._place(node)
        if isinstance(target, ast.Name) and operator == "=":
            constant = not scope.loops and isinstance(value, ast.Constant)
            inside = [n for n in ast.walk(value) if isinstance(n, (ast.Name, ast.Call))]
            named = {n.id for n in inside if isinstance(n, ast.Name)}
            reads = any(isinstance(n, ast.Subscript) for n in ast.walk(value))
            index = named & {*scope.loops, *scope.known} and not reads
            if (constant and target.id.isupper()) or index:
                scope.known[target.id] = self.index(value)
                return []
        if not isinstance(target, (ast.Name, ast.Subscript)):
            self._refuse(target, "an element of an array is written: y[i, j]")
        element = self._value(target)
        if not isinstance(element, Element):
            self._refuse(target, "a loop variable or named index is not written anew")
        return [_accumulated(element, operator, self._value(value), place)]

    def index(self, node: ast.expr) -> Expression:
        return self._expression(node, self._scope.index)

    def _value(self, node: ast.expr) -> Expression:
        return self._expression(node, self._scope.value)

    def _expression(
        self, node: ast.expr, of_name: Callable[[str, Place], Expression]
    ) -> Expression:
        place = self._place(node)

        def again(inner: ast.expr) -> Expression:
            return self._expression(inner, of_name)

        if isinstance(node, ast.Constant):
            if type(node.value) is bool or not isinstance(node.value, (int, float)):
                self._refuse(node, "allowed: integers")
            if isinstance(node.value, float) and not node.value.is_integer():
                self._refuse(node, "numbers are integers; name others: a scalar")
            return Number(int(node.value))
        if isinstance(node, ast.Name):
            return of_name(node.id, place)
        if isinstance(node, ast.Subscript):
            array, at = node, []
            while isinstance(array, ast.Subscript):
                inner = array.slice
                own = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                at = [*own, *at]
                array = array.value
            if not isinstance(array, ast.Name):
                self._refuse(node, "an array has a name: A[i, k]")
            return Element(array.id, tuple(self.index(e) for e in at), place)
        if isinstance(node, ast.BinOp):
            signs = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//"}
            operator = {**signs, ast.Mod: "%"}.get(type(node.op))
            if operator is None:
                self._refuse(node, "operators: + - *, and // % of indices")
            return Binary(operator, again(node.left), again(node.right), place)
        if isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.USub):
                return _negated(again(node.operand), place)
            if isinstance(node.op, ast.Not):
                return Call("not", (again(node.operand),), place)
            self._refuse(node, "signs: - and not")
        if isinstance(node, ast.BoolOp):
            word = "and" if isinstance(node.op, ast.And) else "or"
            first, *rest = (again(v) for v in node.values)
            for other in rest:
                first = Binary(word, first, other, place)
            return first
        if isinstance(node, ast.Compare):
            signs = {
                ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
                ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
            }  # fmt: skip
            sides = [again(e) for e in (node.left, *node.comparators)]
            parts: list[Expression] = []
            for op, left, right in zip(node.ops, sides, sides[1:], strict=False):
                if type(op) not in signs:
                    self._refuse(node, "comparisons: < <= > >= == !=")
                parts.append(Binary(signs[type(op)], left, right, place))
            whole = parts[0]
            for part in parts[1:]:
                whole = Binary("and", whole, part, place)
            return whole
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.keywords:
                self._refuse(node, "a function has no named arguments")
            return Call(node.func.id, tuple(again(a) for a in node.args), place)
        return self._refuse(
            node, "allowed: integers, names, elements, + - *, functions"
        )


class _C:
    """Recursive-descent reader of the C subset."""

    def __init__(self, text: str) -> None:
        self._scope = _Scope()
        self._text = self._defined(text)
        self._tokens: list[tuple[str, str, Place]] = []
        line, start, at = 1, 0, 0
        while at < len(self._text):
            match = _C_TOKEN.match(self._text, at)
            place = Place(line, at - start + 1)
            if match is None:
                raise ProgramError(f"{self._text[at]!r} is not read here", place)
            kind, token = match.lastgroup or "", match.group()
            if kind != "space":
                self._tokens.append((kind, token, place))
            breaks = token.count("\n")
            if breaks:
                line, start = line + breaks, at + token.rindex("\n") + 1
            at = match.end()
        self._end = Place(line, at - start + 1)
        self._at = 0

    def _defined(self, text: str) -> str:
        """The text with its ``#define`` lines read and blanked."""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            found = re.match(r"\s*#\s*define\s+(\w+)\s+(-?\d+)\s*(?://.*)?$", line)
            if found:
                self._scope.known[found[1]] = Number(int(found[2]))
                lines[number] = ""
            elif re.match(r"\s*#\s*pragma\b", line):
                lines[number] = ""
        return "\n".join(lines)

    # Tokens.

    def _see(self, *words: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at][1] in words

    def _take(self, *words: str) -> bool:
        found = self._see(*words)
        self._at += found
        return found

    def _place(self) -> Place:
        return self._tokens[self._at][2] if self._at < len(self._tokens) else self._end

    def _refuse(self, wanted: str) -> NoReturn:
        over = self._at >= len(self._tokens)
        given = "the end" if over else repr(self._tokens[self._at][1])
        raise ProgramError(f"found {given}; {wanted}", self._place())

    def _must(self, word: str) -> None:
        if not self._take(word):
            self._refuse(f"wanted: {word!r}")

    def _word(self, what: str) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at][0] != "name":
            self._refuse(f"wanted: {what}")
        self._at += 1
        return self._tokens[self._at - 1][1]

    # Statements.

    def program(self) -> Program:
        body: list[Node] = []
        while self._at < len(self._tokens):
            body += self._node()
        return self._scope.program(tuple(body))

    def _block(self) -> tuple[Node, ...]:
        known = dict(self._scope.known)
        body: list[Node] = []
        if self._take("{"):
            while not self._take("}"):
                if self._at >= len(self._tokens):
                    self._refuse("wanted: '}'")
                body += self._node()
        else:
            body += self._node()
        self._scope.known = known  # names declared inside end here
        return tuple(body)

    def _node(self) -> list[Node]:
        place = self._place()
        if self._take(";"):
            return []
        if self._see("{"):
            return list(self._block())
        if self._take("for"):
            return [self._loop(place)]
        if self._take("if"):
            self._must("(")
            condition = self._index()
            self._must(")")
            made: list[Node] = [Guard(condition, self._block(), place)]
            if self._take("else"):
                otherwise = Call("not", (condition,), place)
                made.append(Guard(otherwise, self._block(), place))
            return made
        if self._take("assume", "assert"):
            self._must("(")
            self._scope.assumptions.append(self._index())
            self._must(")")
            self._must(";")
            return []
        if self._see("const", *_C_TYPES):
            return self._declared(place)
        return self._assign(place)

    def _loop(self, place: Place) -> Loop:
        scope, shape = (
            self._scope,
            "a loop is: for (int i = start; i < stop; i += step)",
        )
        self._must("(")
        self._take(*_C_INDEX_TYPES)
        variable = self._word("a loop variable")
        self._must("=")
        start = self._index()
        self._must(";")
        if self._word("the loop variable") != variable or not self._see(
            "<", "<=", ">", ">="
        ):
            self._refuse(f"{shape}, with <, <=, > or >=")
        sign = self._tokens[self._at][1]
        self._at += 1
        stop = self._index()
        self._must(";")
        step = self._step(variable, shape)
        self._must(")")
        if (step > 0) != (sign in ("<", "<=")):
            raise ProgramError(
                f"the loop runs by {step} while {variable} {sign} {stop}; an upper bound "
                "wants a positive step, a lower bound a negative one",
                place,
            )
        if sign in ("<=", ">="):
            stop = Binary("+", stop, Number(1 if step > 0 else -1))
        scope.loops.append(variable)
        hidden = scope.known.pop(variable, None)
        body = self._block()
        if hidden is not None:
            scope.known[variable] = hidden
        scope.loops.pop()
        return Loop(variable, start, stop, step, body, place)

    def _step(self, variable: str, shape: str) -> int:
        place = self._place()
        if self._take("++", "--"):
            sign = self._tokens[self._at - 1][1]
            named = self._word("the loop variable")
            step = 1 if sign == "++" else -1
        else:
            named = self._word("the loop variable")
            if self._take("++"):
                step = 1
            elif self._take("--"):
                step = -1
            elif self._take("+=", "-="):
                sign = self._tokens[self._at - 1][1]
                size = self._scope.integer(self._index(), "the step", place)
                step = size if sign == "+=" else -size
            else:
                self._refuse(shape)
        if named != variable or step == 0:
            raise ProgramError(shape, place)
        return step

    def _declared(self, place: Place) -> list[Node]:
        self._take("const")
        kind = self._word("a type")
        if kind not in _C_TYPES:
            raise ProgramError(f"type {kind!r}; known: {', '.join(_C_TYPES)}", place)
        made: list[Node] = []
        while True:
            name = self._word("a name")
            extents: list[Expression] = []
            while self._take("["):
                extents.append(self._index())
                self._must("]")
            if extents:
                self._scope.extents.append((name, tuple(extents)))
            if self._take("="):
                if kind in _C_INDEX_TYPES:
                    self._scope.known[name] = self._index()
                else:
                    value = self._value()
                    made.append(Assign(Element(name, (), place), value, False, place))
            if not self._take(","):
                break
        self._must(";")
        return made

    def _assign(self, place: Place) -> list[Node]:
        name = self._word("for, if, a declaration, or an element that is written")
        indices = self._subscripts()
        target = (
            Element(name, indices, place) if indices else self._scope.value(name, place)
        )
        if not isinstance(target, Element):
            raise ProgramError(
                f"{name} is an index or an integer and is not written anew", place
            )
        if not self._see("=", "+=", "-="):
            self._refuse("wanted: = += or -=")
        operator = self._tokens[self._at][1]
        self._at += 1
        value = self._value()
        self._must(";")
        return [_accumulated(target, operator, value, place)]

    # Expressions.

    def _index(self) -> Expression:
        return self._binary(0, self._scope.index)

    def _value(self) -> Expression:
        return self._binary(0, self._scope.value)

    def _subscripts(self) -> tuple[Expression, ...]:
        indices: list[Expression] = []
        while self._take("["):
            indices.append(self._index())
            while self._take(","):
                indices.append(self._index())
            self._must("]")
        return tuple(indices)

    def _binary(
        self, level: int, of_name: Callable[[str, Place], Expression]
    ) -> Expression:
        if level == len(_C_OPERATORS):
            return self._unary(of_name)
        left = self._binary(level + 1, of_name)
        while self._see(*_C_OPERATORS[level]):
            place = self._place()
            operator = _C_OPERATORS[level][self._tokens[self._at][1]]
            self._at += 1
            right = self._binary(level + 1, of_name)
            if operator in _OF_INDICES:
                left = Call(operator, (left, right), place)
            else:
                left = Binary(operator, left, right, place)
        return left

    def _unary(self, of_name: Callable[[str, Place], Expression]) -> Expression:
        place = self._place()
        if self._take("-"):
            return _negated(self._unary(of_name), place)
        if self._take("!"):
            return Call("not", (self._unary(of_name),), place)
        if self._take("("):
            inner = self._binary(0, of_name)
            self._must(")")
            return inner
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "number":
            text = self._tokens[self._at][1]
            number = float(re.sub(r"[fFuUlL]+$", "", text))
            if not number.is_integer():
                self._refuse("numbers are integers; name others: a scalar")
            self._at += 1
            return Number(int(number))
        name = self._word("a number, a name or an element")
        if self._see("["):
            return Element(name, self._subscripts(), place)
        if self._take("("):
            arguments = [self._binary(0, of_name)]
            while self._take(","):
                arguments.append(self._binary(0, of_name))
            self._must(")")
            return Call(name, tuple(arguments), place)
        return of_name(name, place)
