"""The value of every element of a program's results, as sums of products of inputs.

A value is a :class:`Sum` over a *context* (the instances of a statement, or the elements
of a result). Each of its :class:`Term` is summed over the points that a relation gives
for the context's point; a term is a coefficient times elements of inputs times functions
of other sums.

Copies and partial sums that a program hands from instance to instance (a systolic
array's registers) make a statement depend on itself. Such a chain is followed by the
transitive closure of its hop, and only where isl says that the closure is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import islpy as isl

from elision.verify.flow import Flow, Sources, maps_of
from elision.verify.program import Binary, Call, Element, Expression, Number

__all__ = ["Beyond", "Sum", "Term", "Values"]


class Beyond(Exception):
    """A program outside what the normal form holds; the message says why."""


@dataclass(frozen=True)
class Term:
    """One sum of products.

    Attributes:
        coefficient: an integer.
        index: relation from the context to the points that are summed over.
        factors: array and relation from the points to its elements.
        calls: function and its arguments, sums over the points as context.
        time: relation from the points to the time at which each is added; None: no
            single one.
        is_plain: the points are the context itself.
    """

    coefficient: int
    index: Any
    factors: tuple[tuple[str, Any], ...]
    calls: tuple[tuple[str, tuple["Sum", ...]], ...] = ()
    time: Any = None
    is_plain: bool = True

    def over(self, step: Any) -> "Term":
        """The term for another context, a function of which gives this one's points."""
        index = step.apply_range(self.index)
        if not self.is_plain:
            return replace(self, index=index)
        return replace(
            self,
            index=index.domain().identity(),
            factors=tuple((a, step.apply_range(f)) for a, f in self.factors),
            calls=tuple((f, tuple(s.over(step) for s in a)) for f, a in self.calls),
            time=self.time and step.apply_range(self.time),
        )

    def summed(self, step: Any) -> "Term":
        """The term for a context that sums over all points that a relation gives."""
        if self.is_plain:
            index = step.intersect_range(self.index.domain())
            return replace(self, index=index, is_plain=False)
        pairs = self.index.wrap()
        # A point may be met once for every instance between: the pair tells them apart.
        to_point = self.index.range_map()
        del pairs
        return Term(
            self.coefficient,
            step.apply_range(self.index.domain_map().reverse()),
            tuple((a, to_point.apply_range(f)) for a, f in self.factors),
            tuple((f, tuple(s.over(to_point) for s in a)) for f, a in self.calls),
            self.time and to_point.apply_range(self.time),
            is_plain=False,
        )

    def times(self, other: "Term") -> "Term":
        """The product of two terms of one context."""
        coefficient = self.coefficient * other.coefficient
        if self.is_plain and other.is_plain:
            index = self.index & other.index
            parts = (self.factors + other.factors, self.calls + other.calls)
            return Term(coefficient, index, *parts)
        if self.is_plain or other.is_plain:
            plain, summed = (self, other) if self.is_plain else (other, self)
            index = summed.index.intersect_domain(plain.index.domain())
            first, second = index.domain_map(), index.range_map()
            index = first.reverse()
            left, right = plain, summed
        else:
            both = self.index.range_product(other.index)
            pair = both.range().unwrap()
            first, second = pair.domain_map(), pair.range_map()
            index, left, right = both, self, other
        return Term(
            coefficient,
            index,
            tuple((a, first.apply_range(f)) for a, f in left.factors)
            + tuple((a, second.apply_range(f)) for a, f in right.factors),
            tuple((f, tuple(s.over(first) for s in a)) for f, a in left.calls)
            + tuple((f, tuple(s.over(second) for s in a)) for f, a in right.calls),
            is_plain=False,
        )

    @property
    def is_empty(self) -> bool:
        """Whether no point is summed over."""
        return self.index.is_empty()


@dataclass(frozen=True)
class Sum:
    """A sum of terms over one context.

    Attributes:
        terms: the terms.
        is_atom: at most one product of at most two factors, wherever one looks.
        is_chain: the points are added one after the other, in the order of their times.
    """

    terms: tuple[Term, ...]
    is_atom: bool = False
    is_chain: bool = False

    def over(self, step: Any) -> "Sum":
        """The sum for another context, of which ``step`` is a function to this one."""
        return self._of(t.over(step) for t in self.terms)

    def within(self, context: Any) -> "Sum":
        """The sum on a part of its context."""
        return self._of(
            replace(t, index=t.index.intersect_domain(context)) for t in self.terms
        )

    @property
    def is_fresh(self) -> bool:
        """Whether it is an atom that was made where it is used, not read as a sum's."""
        return self.is_atom and all(t.time is None for t in self.terms)

    def joined(self) -> "Sum":
        """An atom with the terms in one that differ only in where they apply."""
        found: dict[Any, Term] = {}
        for t in self.terms:
            key = (t.coefficient, *(a for a, _ in t.factors), t.time is None)
            if not t.is_plain or t.calls:
                return self
            if key not in found:
                found[key] = t
                continue
            other = found[key]
            found[key] = replace(
                t,
                index=t.index | other.index,
                factors=tuple(
                    (a, f | g)
                    for (a, f), (_, g) in zip(t.factors, other.factors, strict=True)
                ),
                time=t.time and t.time | other.time,
            )
        if len(found) == len(self.terms):
            return self
        whole = (
            replace(
                t,
                index=t.index.coalesce(),
                factors=tuple((a, f.coalesce()) for a, f in t.factors),
                time=t.time and t.time.coalesce(),
            )
            for t in found.values()
        )
        return replace(self, terms=tuple(whole))

    def timed(self, time: Any) -> "Sum":
        """An atom as a chain of one link, added at a time."""
        if not self.is_atom:
            return self
        terms = tuple(replace(t, time=time if t.is_plain else None) for t in self.terms)
        return Sum(terms, is_chain=all(t.is_plain for t in self.terms))

    def _of(self, terms: Iterator[Term]) -> "Sum":
        return replace(self, terms=tuple(t for t in terms if not t.is_empty))


_ZERO = Sum((), is_atom=True, is_chain=True)


class Values:
    """The values of a program's results.

    Args:
        flow: its dataflow.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._inst = flow.instances
        self._known: dict[str, Sum] = {}
        self._circle: dict[str, frozenset[str]] = {}
        self._find_circles()

    def result(self, array: str, at: Any) -> Sum:
        """The final values of the elements ``at`` of an array.

        Raises:
            Beyond: the program is outside what the normal form holds.
        """
        return self._read(array, self.flow.results(array, at))

    # The statements that depend on one another.

    def _find_circles(self) -> None:
        """Tarjan's strongly connected components of the statements."""
        number: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        edges: dict[str, set[str]] = {}

        def visit(name: str) -> None:
            number[name] = low[name] = len(number)
            stack.append(name)
            edges[name] = set()
            for element in _elements(self._value(name)):
                sources = self.flow.sources(name, element)
                edges[name].update(sources.definitions, sources.contributions)
            for other in sorted(edges[name]):
                if other not in number:
                    visit(other)
                if other in stack:
                    low[name] = min(low[name], low[other])
            if low[name] == number[name]:
                members = stack[stack.index(name) :]
                del stack[stack.index(name) :]
                if len(members) > 1 or name in edges[name]:
                    for member in members:
                        self._circle[member] = frozenset(members)

        for name in self._inst.statements:
            if name not in number:
                visit(name)

    def _value(self, name: str) -> Expression:
        return self._inst.statements[name].assign.value

    # Values.

    def _read(self, array: str, sources: Sources) -> Sum:
        terms: list[Term] = []
        if not sources.undefined.is_empty():
            there = sources.undefined.identity()
            factor = array, sources.element.intersect_domain(sources.undefined)
            terms.append(Term(1, there, (factor,)))
        atom = chain = True
        for name, step in sources.definitions.items():
            found = self._defined(name).over(step)
            atom &= found.is_atom
            chain &= found.is_chain
            terms += found.terms
        if not sources.contributions:
            found = Sum(tuple(terms), atom, chain)
            return found.joined() if atom else found
        if atom and not chain:
            # What the sum starts from is its first link.
            chain = not sources.definitions
        for name, step in sources.contributions.items():
            if name in self._circle:
                raise Beyond(
                    f"{self._inst.statements[name].assign} adds what it has made itself"
                )
            added = self._expression(name, self._value(name)).timed(
                self._inst.schedule[name]
            )
            chain &= added.is_chain
            terms += [
                t for t in (t.summed(step) for t in added.terms) if not t.is_empty
            ]
        return Sum(tuple(terms), False, chain)

    def _defined(self, name: str) -> Sum:
        """The value that a statement with ``=`` gives its element."""
        if name not in self._known:
            if name in self._circle:
                found = self._followed(name)
            else:
                found = self._expression(name, self._value(name))
                if found.is_atom:
                    chain = found.timed(self._inst.schedule[name])
                    found = replace(chain, is_atom=True)
            self._known[name] = found
        return self._known[name]

    def _expression(
        self, name: str, e: Expression, but: Element | None = None, circle: Any = ()
    ) -> Sum:
        """An expression in a statement.

        Of the element ``but`` only what no statement of the circle made.
        """
        if isinstance(e, Number):
            domain = self._inst.domain[name]
            terms = (Term(e.value, domain.identity(), ()),) if e.value else ()
            return Sum(terms, is_atom=True, is_chain=not terms)
        if isinstance(e, Element):
            sources = self.flow.sources(name, e)
            if e is but:
                kept = {k: v for k, v in sources.definitions.items() if k not in circle}
                sources = replace(sources, definitions=kept)
            return self._read(e.array, sources)
        if isinstance(e, Call):
            arguments = tuple(self._expression(name, a) for a in e.arguments)
            term = Term(
                1, self._inst.domain[name].identity(), (), ((e.function, arguments),)
            )
            return Sum((term,), is_atom=True)
        assert isinstance(e, Binary)
        left = self._expression(name, e.left, but, circle)
        right = self._expression(name, e.right, but, circle)
        if e.operator == "*":
            products = [a.times(b) for a in left.terms for b in right.terms]
            kept = tuple(t for t in products if not t.is_empty)
            small = all(
                len(t.factors) + len(t.calls) <= 2 and abs(t.coefficient) == 1
                for t in kept
            )
            return Sum(kept, left.is_atom and right.is_atom and small)
        if e.operator == "-":
            negated = [replace(t, coefficient=-t.coefficient) for t in right.terms]
            right = replace(right, terms=tuple(negated))
        if not left.terms or not right.terms:
            return left if left.terms else right
        chain, last = (left, right) if right.is_fresh else (right, left)
        if chain.is_chain and not chain.is_fresh and last.is_fresh:
            link = last.timed(self._inst.schedule[name])
            return Sum(chain.terms + link.terms, False, link.is_chain)
        return Sum(left.terms + right.terms)

    def _followed(self, name: str) -> Sum:
        """A value that statements hand to one another, from where each link was added."""
        circle = self._circle[name]
        steps: list[Any] = []
        rests: dict[str, Sum] = {}
        copies = True
        for member in sorted(circle):
            statement = self._inst.statements[member]
            inside = []
            for element in _elements(statement.assign.value):
                sources = self.flow.sources(member, element)
                if circle & {*sources.definitions, *sources.contributions}:
                    inside.append((element, sources))
            addends = list(_addends(statement.assign.value))
            handed = [e for e, _ in inside if any(a is e for a in addends)]
            adds = any(s.contributions.keys() & circle for _, s in inside)
            if statement.assign.adds or adds or len(inside) != 1 or len(handed) != 1:
                raise Beyond(
                    f"{statement.assign} depends on itself and is neither a copy nor a "
                    "running sum"
                )
            ((element, sources),) = inside
            steps += [m for n, m in sources.definitions.items() if n in circle]
            copies &= element is statement.assign.value
            rests[member] = self._expression(
                member, statement.assign.value, element, circle
            )
        union = reduce(lambda a, b: a.union(b), map(isl.UnionMap.from_map, steps))
        closure, exact = union.transitive_closure()
        if not exact:
            raise Beyond(
                f"the chain of copies through {self._inst.statements[name].assign} has "
                "no exact transitive closure"
            )
        reached = {
            m.get_tuple_name(isl.dim_type.out): m
            for m in maps_of(closure)
            if m.get_tuple_name(isl.dim_type.in_) == name
        }
        itself = self._inst.domain[name].identity()
        reached[name] = reached[name] | itself if name in reached else itself
        if copies and all(rest.is_atom for rest in rests.values()):
            # A copy has one source, where the chain begins.
            terms = [
                t.over(step.intersect_range(t.index.domain()))
                for n, step in reached.items()
                for t in rests[n].terms
            ]
            kept = tuple(t for t in terms if not t.is_empty)
            return Sum(kept, is_atom=True).joined()
        for n, rest in rests.items():
            rests[n] = rest.timed(self._inst.schedule[n])
        terms = [t.summed(step) for n, step in reached.items() for t in rests[n].terms]
        chain = all(rests[n].is_chain for n in reached)
        return Sum(tuple(t for t in terms if not t.is_empty), False, chain)


def _elements(e: Expression) -> Iterator[Element]:
    """The elements that a value reads, each object once for each place in the text."""
    if isinstance(e, Element):
        yield e
    elif isinstance(e, Binary):
        yield from _elements(e.left)
        yield from _elements(e.right)
    elif isinstance(e, Call):
        for argument in e.arguments:
            yield from _elements(argument)


def _addends(e: Expression) -> Iterator[Expression]:
    """The parts that an expression adds up."""
    if isinstance(e, Binary) and e.operator == "+":
        yield from _addends(e.left)
        yield from _addends(e.right)
    elif isinstance(e, Binary) and e.operator == "-":
        yield from _addends(e.left)
    else:
        yield e
