"""A loop program as sets and relations of integers, in the library isl.

For each statement: the *domain* of its instances, the *schedule* that orders them, and
the element that each access touches. A schedule is a tuple of positions in the text and
loop variables, compared as words in a dictionary; a loop that counts down has its
variable negated. Positions at which no two statements differ are left out.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, reduce
from typing import Any

import islpy as isl

from elision.verify.assumptions import is_bound
from elision.verify.program import (
    Binary,
    Call,
    Element,
    Expression,
    Guard,
    Loop,
    Name,
    NotAffine,
    Number,
    Program,
    ProgramError,
    Statement,
    names,
)

__all__ = ["Instances", "context"]

_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "<": lambda a, b: a.lt_set(b),
    "<=": lambda a, b: a.le_set(b),
    ">": lambda a, b: a.gt_set(b),
    ">=": lambda a, b: a.ge_set(b),
    "==": lambda a, b: a.eq_set(b),
    "!=": lambda a, b: a.ne_set(b),
}


class _Affine:
    """Index expressions over the variables of one statement, as isl's functions."""

    def __init__(self, variables: list[str], sizes: tuple[str, ...]) -> None:
        self._vars = isl.make_zero_and_vars(variables, list(sizes))
        self.zero = self._vars[0]

    def of(self, e: Expression, where: str) -> Any:
        if isinstance(e, Number):
            return self.zero + e.value
        if isinstance(e, Name):
            return self._vars[e.name]
        if isinstance(e, Binary) and e.operator in ("+", "-"):
            left, right = self.of(e.left, where), self.of(e.right, where)
            return left + right if e.operator == "+" else left - right
        if isinstance(e, Binary) and e.operator == "*":
            left, right = self.of(e.left, where), self.of(e.right, where)
            if not (left.is_cst() or right.is_cst()):
                raise _not_affine(e, where, "a product of two unknowns")
            return left * right
        if isinstance(e, Binary) and e.operator in ("//", "%"):
            value, divisor = self._divided(e, e.left, e.right, where)
            whole = value.scale_down_val(divisor).floor()
            return whole if e.operator == "//" else value - whole.scale_val(divisor)
        if isinstance(e, Call) and e.function in ("min", "max"):
            values = [self.of(a, where) for a in e.arguments]
            method = "min" if e.function == "min" else "max"
            return reduce(lambda a, b: getattr(a, method)(b), values)
        if isinstance(e, Call) and e.function in ("quotient", "remainder"):
            if len(e.arguments) != 2:
                raise ProgramError(f"{e} in {where}: {e.function} takes two", e.place)
            left, right = e.arguments
            value, divisor = self._divided(e, left, right, where)
            by = self.zero + int(divisor.to_python())
            quotient = e.function == "quotient"
            return value.tdiv_q(by) if quotient else value.tdiv_r(by)
        if isinstance(e, Call):
            raise ProgramError(
                f"function {e.function!r} in {where}; allowed of indices: min, max, "
                "quotient, remainder, not",
                e.place,
            )
        raise ProgramError(f"{e} is no index in {where}", getattr(e, "place", None))

    def _divided(self, e: Any, left: Any, right: Any, where: str) -> tuple[Any, Any]:
        divisor = self.of(right, where)
        if names(right) or not divisor.is_cst():
            raise _not_affine(e, where, "a division by an unknown")
        value = int(divisor.eval(_origin(divisor)).to_python())
        if value <= 0:
            raise ProgramError(
                f"{e} in {where}: the divisor is {value}; allowed: at least 1", e.place
            )
        return self.of(left, where), isl.Val(value)

    def condition(self, e: Expression, where: str = "a condition") -> Any:
        if isinstance(e, Binary) and e.operator in _COMPARED:
            left, right = self.of(e.left, where), self.of(e.right, where)
            return _COMPARED[e.operator](left, right)
        if isinstance(e, Binary) and e.operator in ("and", "or"):
            left, right = self.condition(e.left, where), self.condition(e.right, where)
            return left & right if e.operator == "and" else left | right
        if isinstance(e, Call) and e.function == "not":
            return self.condition(e.arguments[0], where).complement()
        return self.of(e, where).ne_set(self.zero)


def _origin(function: Any) -> Any:
    return isl.Point.zero(function.get_domain_space())


def _not_affine(e: Any, where: str, what: str) -> NotAffine:
    unknown = ", ".join(sorted(names(e)))
    return NotAffine(
        f"{e} in {where} is {what} ({unknown}), not affine; allowed: sums of loop "
        "variables and sizes times integers, // and % by integers. Give a size its value "
        "to make it an integer",
        e.place,
    )


def context(assumptions: tuple[Expression, ...], sizes: tuple[str, ...]) -> Any:
    """The values of the sizes that the assumptions allow, an isl set of parameters.

    A size that no assumption bounds is at least 1.
    """
    affine = _Affine([], sizes)
    found = affine.zero.domain()
    bounded: set[str] = set()
    for assumption in assumptions:
        found &= affine.condition(assumption, "an assumption")
        bounded |= is_bound(assumption)
    for size in sizes:
        if size not in bounded:
            found &= affine.of(Name(size), "").ge_set(affine.zero + 1)
    return found.params()


class Instances:
    """The instances of a program's statements.

    Args:
        program: the program.
        sizes: parameters of all sets, a superset of the program's.
        allowed: values of the sizes, by :func:`context`.

    Raises:
        ProgramError: a bound, a condition or a subscript is not affine.
    """

    def __init__(self, program: Program, sizes: tuple[str, ...], allowed: Any) -> None:
        self.program = program
        self.sizes = sizes
        self.allowed = allowed
        self.statements = {s.name: s for s in program.statements}
        self._affine: dict[str, _Affine] = {}
        self.domain: dict[str, Any] = {}
        for s in program.statements:
            self._affine[s.name] = _Affine([x.variable for x in s.loops], sizes)
            self.domain[s.name] = self._domain_of(s)

    def _domain_of(self, s: Statement) -> Any:
        affine = self._affine[s.name]
        found = affine.zero.domain()
        for node in s.around:
            if isinstance(node, Guard):
                found &= affine.condition(node.condition)
                continue
            where = f"a bound of loop {node.variable}"
            i = affine.of(Name(node.variable), where)
            start, stop = affine.of(node.start, where), affine.of(node.stop, where)
            if node.step > 0:
                found &= i.ge_set(start) & i.lt_set(stop)
            else:
                found &= i.le_set(start) & i.gt_set(stop)
            if abs(node.step) > 1:
                distance = i - start
                found &= distance.mod_val(isl.Val(abs(node.step))).eq_set(affine.zero)
        found = found.intersect_params(self.allowed)
        return found.set_tuple_name(s.name).coalesce()

    def access(self, name: str, element: Element) -> Any:
        """The relation from the instances of a statement to the element it touches."""
        where = f"a subscript of {element.array}"
        domain = self.domain[name]
        if not element.indices:
            space = isl.Space.create_from_names(
                isl.DEFAULT_CONTEXT, set=[], params=list(self.sizes)
            )
            target = isl.Set.universe(space).set_tuple_name(element.array)
            return isl.Map.from_domain_and_range(domain, target)
        found = self.function(name, element.indices, where)
        return found.set_tuple_name(isl.dim_type.out, element.array)

    def function(self, name: str, parts: Sequence[Expression], where: str) -> Any:
        """The relation from the instances of a statement to index expressions' values."""
        affine = self._affine[name]
        maps = [isl.Map.from_pw_aff(affine.of(p, where)) for p in parts]
        found = reduce(lambda a, b: a.flat_range_product(b), maps)
        found = found.set_tuple_name(isl.dim_type.in_, name)
        return found.intersect_domain(self.domain[name])

    def where(self, name: str, condition: Expression) -> Any:
        """The instances of a statement at which a condition holds."""
        found = self._affine[name].condition(condition)
        return found.set_tuple_name(name) & self.domain[name]

    @cached_property
    def _places(self) -> dict[str, list[Any]]:
        """The schedule of every statement as positions and signed loops."""
        found: dict[str, list[Any]] = {}
        for s in self.statements.values():
            steps: list[Any] = []
            for position, node in zip(s.positions, s.around, strict=False):
                steps.append(position)
                if isinstance(node, Loop):
                    steps.append((node.variable, 1 if node.step > 0 else -1))
            steps.append(s.positions[-1])
            found[s.name] = steps
        depth = max(map(len, found.values()), default=1)
        for steps in found.values():
            steps += [0] * (depth - len(steps))
        # The first place also orders the program before what reads its results.
        kept = [
            n
            for n in range(depth)
            if n == 0 or any(steps[n] != 0 for steps in found.values())
        ]
        return {name: [steps[n] for n in kept] for name, steps in found.items()}

    @property
    def depth(self) -> int:
        """Length of the schedule."""
        return max((len(p) for p in self._places.values()), default=1)

    @cached_property
    def schedule(self) -> dict[str, Any]:
        """The time of every instance, a relation from each statement."""
        found = {}
        for name, places in self._places.items():
            affine = self._affine[name]
            parts = [
                affine.of(Name(p[0]), "").scale_val(isl.Val(p[1]))
                if isinstance(p, tuple)
                else affine.zero + p
                for p in places
            ]
            maps = [isl.Map.from_pw_aff(p) for p in parts]
            time = reduce(lambda a, b: a.flat_range_product(b), maps)
            time = time.set_tuple_name(isl.dim_type.in_, name)
            found[name] = time.intersect_domain(self.domain[name])
        return found

    @cached_property
    def _orders(self) -> dict[tuple[str, str], Any]:
        return {}

    def before(self, first: str, second: str) -> Any:
        """Instances of one statement that run before those of another."""
        key = first, second
        if key not in self._orders:
            times = self.schedule[first], self.schedule[second]
            self._orders[key] = times[0].lex_lt_map(times[1])
        return self._orders[key]
