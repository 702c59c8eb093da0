"""Programs whose sizes multiply, such as tiles of unknown size, compared by z3.

Integer sets know no products of unknowns. Here a program is one statement that adds
products of inputs, and one that sets the results to a number before. Two such programs are
equal if each product of the one is a product of the other, no product comes twice, and the
results are set alike. "There is an iteration such that" becomes a guess that z3 checks: of
``T·a + b`` the guess is ``a = i // T``, ``b = i % T``. So z3 never sees a quantifier.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elision.verify.polynomials import monomials
from elision.verify.program import (
    Binary,
    Call,
    Element,
    Expression,
    Guard,
    Name,
    Number,
    Program,
    Statement,
)

__all__ = ["Unfit", "proved"]


class Unfit(Exception):
    """No proof by z3; the message says why."""


@dataclass(frozen=True)
class _Parts:
    """A program as the statement that sets its results and the one that adds to them."""

    program: Program
    sets: Statement
    adds: Statement
    factors: tuple[Element, ...]

    @classmethod
    def of(cls, program: Program, outputs: tuple[str, ...]) -> "_Parts":
        sets = [s for s in program.statements if not s.assign.adds]
        adds = [s for s in program.statements if s.assign.adds]
        if len(sets) != 1 or len(adds) != 1 or len(outputs) != 1:
            raise Unfit("with sizes that multiply, only one = and one += are compared")
        (a,), (b,) = sets, adds
        if not isinstance(a.assign.value, Number):
            raise Unfit(f"{a.assign} sets no number")
        factors = tuple(sorted(_factors(b.assign.value), key=lambda e: e.array))
        arrays = [e.array for e in factors]
        if len(set(arrays)) < len(arrays) or set(arrays) & set(outputs):
            raise Unfit(f"{b.assign} is no product of different inputs")
        if {a.assign.target.array, b.assign.target.array} != set(outputs):
            raise Unfit(f"{a.assign} and {b.assign} are of different arrays")
        return cls(program, a, b, factors)


def _factors(e: Expression) -> Iterator[Element]:
    if isinstance(e, Binary) and e.operator == "*":
        yield from _factors(e.left)
        yield from _factors(e.right)
    elif isinstance(e, Element):
        yield e
    else:
        raise Unfit(f"{e} is no product of inputs")


class _Iteration:
    """One iteration of a statement: its variables, and what holds of them."""

    def __init__(
        self, statement: Statement, values: Mapping[str, Any], allowed: "_Integers"
    ) -> None:
        self.statement = statement
        self.values = values
        self.at = allowed.of(values)
        self.facts = list(self.at.domain(statement))

    def place(self, parts: Sequence[Element]) -> list[Any]:
        return [self.at.index(i) for e in parts for i in e.indices]


class _Integers:
    """Index expressions as z3's, sizes and variables being given."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        #: What must be positive for ``//`` and ``%`` to mean what they do.
        self.divisors: list[Any] = []

    def of(self, more: Mapping[str, Any]) -> "_Integers":
        found = _Integers({**self.values, **more})
        found.divisors = self.divisors
        return found

    def index(self, e: Expression) -> Any:
        import z3

        if isinstance(e, Number):
            return z3.IntVal(e.value)
        if isinstance(e, Name):
            return self.values[e.name]
        if isinstance(e, Binary):
            left, right = self.index(e.left), self.index(e.right)
            if e.operator == "//":
                self.divisors.append(right)
                return left / right
            if e.operator == "%":
                self.divisors.append(right)
                return left % right
            return {"+": left + right, "-": left - right, "*": left * right}[e.operator]
        if isinstance(e, Call) and e.function in ("min", "max"):
            first, *rest = (self.index(a) for a in e.arguments)
            for other in rest:
                less = first <= other
                pair = (first, other) if e.function == "min" else (other, first)
                first = z3.If(less, *pair)
            return first
        if isinstance(e, Call) and e.function in ("quotient", "remainder"):
            left, right = (self.index(a) for a in e.arguments)
            self.divisors.append(right)
            whole = z3.If(left >= 0, left / right, -(-left / right))
            return whole if e.function == "quotient" else left - whole * right
        raise Unfit(f"{e} is not compared with sizes that multiply")

    def condition(self, e: Expression) -> Any:
        import z3

        if isinstance(e, Binary) and e.operator in ("and", "or"):
            left, right = self.condition(e.left), self.condition(e.right)
            return z3.And(left, right) if e.operator == "and" else z3.Or(left, right)
        if isinstance(e, Call) and e.function == "not":
            return z3.Not(self.condition(e.arguments[0]))
        if isinstance(e, Binary) and e.operator in ("<", "<=", ">", ">=", "==", "!="):
            left, right = self.index(e.left), self.index(e.right)
            return {
                "<": left < right, "<=": left <= right, ">": left > right,
                ">=": left >= right, "==": left == right, "!=": left != right,
            }[e.operator]  # fmt: skip
        raise Unfit(f"{e} is no comparison")

    def domain(self, statement: Statement) -> Iterator[Any]:
        for node in statement.around:
            if isinstance(node, Guard):
                yield self.condition(node.condition)
                continue
            i = self.values[node.variable]
            start, stop = self.index(node.start), self.index(node.stop)
            yield i >= start if node.step > 0 else i <= start
            yield i < stop if node.step > 0 else i > stop
            if abs(node.step) > 1:
                yield (i - start) % abs(node.step) == 0


def proved(
    ours: Program, spec: Program, outputs: tuple[str, ...], limit_s: float
) -> bool:
    """Whether z3 proves two programs equal.

    Raises:
        Unfit: a program of another form, or a proof that was not found; the message says
            which.
    """
    import z3

    parts = [_Parts.of(p, outputs) for p in (ours, spec)]
    if [e.array for e in parts[0].factors] != [e.array for e in parts[1].factors]:
        raise Unfit("products of different arrays")
    if parts[0].sets.assign.value != parts[1].sets.assign.value:
        raise Unfit("results that start from different numbers")
    sizes = {s: z3.Int(s) for p in (ours, spec) for s in p.sizes}
    whole = _Integers(sizes)
    allowed = [whole.condition(a) for p in (ours, spec) for a in p.assumptions]
    from elision.verify.assumptions import is_bound

    bounded = set().union(
        *(is_bound(a) for p in (ours, spec) for a in p.assumptions), set()
    )
    allowed += [v >= 1 for s, v in sizes.items() if s not in bounded]
    until = time.perf_counter() + limit_s

    def holds(facts: list[Any], claim: Any, what: str) -> None:
        left = until - time.perf_counter()
        solver = z3.Solver()
        solver.set("timeout", max(int(1000 * left), 1))
        solver.add(*allowed, *facts, z3.Not(claim))
        verdict = solver.check()
        if verdict == z3.sat:
            raise Unfit(f"z3 does not see that {what}")
        if verdict != z3.unsat:
            raise Unfit(f"z3 did not decide in {limit_s:g} s that {what}")

    def iteration(statement: Statement, tag: str) -> _Iteration:
        values = {x.variable: z3.Int(f"{x.variable}'{tag}") for x in statement.loops}
        return _Iteration(statement, values, whole)

    for mine, theirs in (parts, parts[::-1]):
        for name in ("sets", "adds"):
            source, target = getattr(mine, name), getattr(theirs, name)
            here = iteration(source, "1")
            sums = name == "adds"
            from_parts = [source.assign.target, *(mine.factors if sums else ())]
            to_parts = [target.assign.target, *(theirs.factors if sums else ())]
            there = here.place(from_parts)
            _found(target, to_parts, there, here, whole, holds)
    for part in parts:
        first, second = iteration(part.adds, "1"), iteration(part.adds, "2")
        both = [part.adds.assign.target, *part.factors]
        same = [
            a == b for a, b in zip(first.place(both), second.place(both), strict=True)
        ]
        equal = z3.And(*(first.values[n] == second.values[n] for n in first.values))
        holds(
            [*first.facts, *second.facts, *same], equal, f"{part.adds.assign} adds once"
        )
        start, add = iteration(part.sets, "1"), iteration(part.adds, "2")
        meet = zip(
            start.place([part.sets.assign.target]),
            add.place([part.adds.assign.target]),
            strict=True,
        )
        facts = [*start.facts, *add.facts, *(a == b for a, b in meet)]
        holds(facts, _before(start, add), f"{part.sets.assign} comes first")
    for divisor in whole.divisors:
        # Divisors are of sizes alone or hold wherever the statement runs.
        if not any(str(v).endswith(("'1", "'2")) for v in _variables(divisor)):
            holds([], divisor >= 1, f"{divisor} is positive")
        else:
            raise Unfit(f"a division by {divisor}, which is no size")
    return True


def _variables(expression: Any) -> Iterator[Any]:
    if expression.num_args() == 0:
        yield expression
    for child in expression.children():
        yield from _variables(child)


def _before(first: _Iteration, second: _Iteration) -> Any:
    """Whether one iteration runs before another, by the positions in the text."""
    import z3

    a, b = first.statement, second.statement
    result: Any = z3.BoolVal(False)
    same: list[Any] = []
    cases = []
    for depth, (p, q) in enumerate(zip(a.positions, b.positions, strict=False)):
        if p != q:
            cases.append(z3.And(*same, z3.BoolVal(p < q)))
            break
        if depth < len(a.around) and depth < len(b.around):
            node = a.around[depth]
            if not isinstance(node, Guard):
                i, j = first.values[node.variable], second.values[node.variable]
                cases.append(z3.And(*same, i < j if node.step > 0 else i > j))
                same.append(i == j)
    return z3.Or(result, *cases)


def _found(
    target: Statement,
    parts: Sequence[Element],
    places: Sequence[Any],
    here: _Iteration,
    whole: _Integers,
    holds: Any,
) -> None:
    """That some iteration of ``target`` has the given places: by a guess that holds."""
    import z3

    indices = [i for e in parts for i in e.indices]
    last: Unfit | None = None
    for values in itertools.islice(_guesses(target, indices, places, whole), 24):
        there = _Iteration(target, values, whole)
        meets = [a == b for a, b in zip(there.place(parts), places, strict=True)]
        claim = z3.And(*there.facts, *meets)
        try:
            return holds(
                here.facts, claim, f"{target.assign} meets {here.statement.assign}"
            )
        except Unfit as error:
            last = error
    raise last or Unfit(
        f"the loops of {target.assign} do not follow from its subscripts"
    )


def _guesses(
    target: Statement, indices: Sequence[Expression], places: Sequence[Any], whole: Any
) -> Iterator[dict[str, Any]]:
    """Values of the loop variables for which the indices may have the given values.

    An index is a sum of variables times products of sizes. One unknown variable is
    solved for; of several, each is the quotient by its factor, in some order, and the
    next is found in the remainder.
    """
    variables = {loop.variable for loop in target.loops}
    equations = _joined(indices, places, whole)

    def solve(known: dict[str, Any], left: list[int]) -> Iterator[dict[str, Any]]:
        if variables <= known.keys():
            yield known
            return
        # A variable that is known is a number like a size from here on.
        free = variables - known.keys()
        sums = {n: monomials(equations[n][0], free) for n in left}
        ready = {
            n: terms for n, terms in sums.items() if terms and terms.keys() - {None}
        }
        if not ready:
            return
        n = min(ready, key=lambda n: len(ready[n]))
        at = whole.of(known)
        rest = equations[n][1]
        if None in ready[n]:
            rest = rest - at.index(ready[n][None])
        terms = {name: factor for name, factor in ready[n].items() if name is not None}
        others = [m for m in left if m != n]
        for order in itertools.permutations(terms):
            found, remainder = dict(known), rest
            for name in order:
                factor = terms[name]
                if factor in (Number(1), Number(-1)):
                    found[name] = remainder if factor == Number(1) else -remainder
                    break
                by = at.index(factor)
                found[name], remainder = remainder / by, remainder % by
            if len(found) == len(known) + len(terms):
                yield from solve(found, others)

    yield from solve({}, list(range(len(equations))))


def _joined(
    indices: Sequence[Expression], places: Sequence[Any], whole: "_Integers"
) -> list[tuple[Expression, Any]]:
    """Indices and their values; a quotient and a remainder of one index are that index."""
    found: list[tuple[Expression, Any]] = []
    pairs = list(zip(indices, places, strict=True))
    for e, quotient in pairs:
        if isinstance(e, Binary) and e.operator == "//":
            rest = Binary("%", e.left, e.right)
            values = [place for other, place in pairs if other == rest]
            try:
                divisor = whole.index(e.right)
            except KeyError:  # a loop variable
                continue
            if values:
                found.append((e.left, divisor * quotient + values[0]))
    return [*found, *pairs]
