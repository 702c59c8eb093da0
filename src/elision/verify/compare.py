"""Equality of two sums of products, for all sizes at once.

Two sums over one context are equal, whatever the inputs, iff every product of input
elements has the same coefficient in both. Where a term's relation from its points to
(context, elements) is injective, no product comes twice in it, and the coefficients are
piecewise constant; with one term on either side the sums are equal iff the ranges are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import permutations, product
from typing import Any

import islpy as isl

from elision.verify.calls import named
from elision.verify.values import Beyond, Sum, Term

__all__ = ["Difference", "differences", "swapped"]


@dataclass(frozen=True)
class Difference:
    """Products that one sum has and the other has not, or has another coefficient of times.

    Attributes:
        arrays: of the factors.
        at: places of the context and of the factors' elements, flat, with the sizes.
        ranks: number of places of the context, then of each factor.
        is_certain: every point of ``at`` is a difference; otherwise a run decides.
        what: ``"lacks"``: the first sum has not what the second has; ``"has besides"``:
            the other way round; ``"has another coefficient of"``.

    Example:
        >>> Difference(("a", "b"), None, (2, 2, 2), True).arrays
        ('a', 'b')
    """

    arrays: tuple[str, ...]
    at: Any
    ranks: tuple[int, ...]
    is_certain: bool
    what: str = "has another coefficient of"


@dataclass(frozen=True)
class _Listed:
    """One term as a function of its points to the context and the factors."""

    arrays: tuple[str, ...]
    coefficient: int
    relation: Any  # points -> [context, elements]
    ranks: tuple[int, ...]
    time: Any

    @property
    def is_injective(self) -> bool:
        return self.relation.is_injective()


def differences(
    first: Sum, second: Sum, clock: Callable[[], None]
) -> Iterator[Difference]:
    """Where two sums over the same context differ; none: they are equal.

    Args:
        first: a sum.
        second: another.
        clock: called now and then; raises where the time is over.

    Raises:
        Beyond: a sum that the comparison does not hold.
    """
    if not (_stands_alone(first) and _stands_alone(second)):

        def equal(a: Sum, b: Sum) -> bool:
            return next(differences(a, b, clock), None) is None

        first, second = named(first, second, equal)
    yield from _called(first, second, clock)
    mine, theirs = _by_arrays(first), _by_arrays(second)
    doubtful = None
    for arrays in sorted({*mine, *theirs}):
        clock()
        ours = _without_equals(mine.get(arrays, []), theirs.get(arrays, []))
        injective = all(t.is_injective for side in ours for t in side)
        clock()
        if injective:
            if ours[0] or ours[1]:
                yield from _of_sets(arrays, *ours)
            continue
        found = list(_of_repeats(arrays, *ours))
        yield from found
        if not found:
            doubtful = arrays
    if doubtful is not None:
        raise Beyond(
            f"a product of {' and '.join(doubtful) or 'constants'} comes more than once "
            "in one sum, and how often is not counted for all sizes"
        )


def _by_arrays(value: Sum) -> dict[tuple[str, ...], list[_Listed]]:
    found: dict[tuple[str, ...], list[_Listed]] = {}
    for term in value.terms:
        if not term.calls:
            for listed in _listed(term):
                found.setdefault(listed.arrays, []).append(listed)
    return found


def _listed(term: Term) -> Iterator[_Listed]:
    """A term with its factors in the order of their names.

    Two elements of one array stand in the order of their subscripts, so that a product
    is found whichever way it is written.
    """
    if term.is_plain:
        points, to_factor = term.index, None
    else:
        pairs, to_factor = term.index.domain_map(), term.index.range_map()
        points = pairs
        if term.index.is_injective():  # a point tells its context
            points, to_factor = term.index.reverse(), None
    order = sorted(range(len(term.factors)), key=lambda n: term.factors[n][0])
    arrays = tuple(term.factors[n][0] for n in order)
    maps = [term.factors[n][1] for n in order]
    time = term.time
    if to_factor is not None:
        maps = [to_factor.apply_range(m) for m in maps]
        time = time and to_factor.apply_range(time)
    alike = [n for n in range(len(arrays) - 1) if arrays[n] == arrays[n + 1]]
    if len(alike) > 1:
        raise Beyond(f"a product of {', '.join(arrays)}: an array stands three times")
    context = points.domain() if term.is_plain else points
    head = context.identity() if term.is_plain else points
    variants = [(head, maps)]
    if alike:
        (n,) = alike
        up = _where_in_order(maps[n], maps[n + 1], head)
        swapped = [*maps[:n], maps[n + 1], maps[n], *maps[n + 2 :]]
        variants = [
            (head.intersect_domain(up), maps),
            (head.subtract_domain(up), swapped),
        ]
    for begin, factors in variants:
        parts = [_bare(p) for p in (begin, *factors)]
        ranks = tuple(p.dim(isl.dim_type.out) for p in parts)
        relation = reduce(lambda a, b: a.flat_range_product(b), parts)
        if not relation.is_empty():
            yield _Listed(arrays, term.coefficient, relation, ranks, time)


def _bare(relation: Any) -> Any:
    """A relation whose range has no name."""
    if relation.has_tuple_id(isl.dim_type.out):
        return relation.reset_tuple_id(isl.dim_type.out)
    return relation


def _where_in_order(left: Any, right: Any, head: Any) -> Any:
    """The points at which one element comes before or with another of its array."""
    pairs = left.lex_le_map(right)
    return (pairs & head.domain().identity()).domain()


def _without_equals(
    first: list[_Listed], second: list[_Listed]
) -> tuple[list[_Listed], list[_Listed]]:
    """Terms without those in which a product comes as often on either side.

    It does if the iterations are the same set, but for the order of their variables.
    """
    if all(t.is_injective for t in (*first, *second)):
        return first, second
    left, right = [], list(second)
    for t in first:
        for other in right:
            if t.coefficient == other.coefficient and _same_iterations(t, other):
                right.remove(other)
                break
        else:
            left.append(t)
    return left, right


def _same_iterations(first: _Listed, second: _Listed) -> bool:
    ours, theirs = (
        t.relation.flatten_domain().reset_tuple_id(isl.dim_type.in_)
        if t.relation.has_tuple_id(isl.dim_type.in_) or t.relation.domain_is_wrapping()
        else t.relation
        for t in (first, second)
    )
    count = ours.dim(isl.dim_type.in_)
    if count != theirs.dim(isl.dim_type.in_) or count > _VARIABLES:
        return False
    names = [f"x{n}" for n in range(count)]
    for order in permutations(names):
        step = isl.Map(f"{{ [{', '.join(names)}] -> [{', '.join(order)}] }}")
        if ours.apply_domain(step).is_equal(theirs):
            return True
    return False


#: Loop variables whose orders are tried, all of them.
_VARIABLES = 4


def _of_sets(
    arrays: tuple[str, ...], first: list[_Listed], second: list[_Listed]
) -> Iterator[Difference]:
    """Differences where no term has a product twice."""
    ranks = (*first, *second)[0].ranks
    if len(first) == len(second) == 1 and first[0].coefficient == second[0].coefficient:
        ours, theirs = first[0].relation.range(), second[0].relation.range()
        if ours.is_equal(theirs):
            return
        for at, what in ((theirs - ours, "lacks"), (ours - theirs, "has besides")):
            if not at.is_empty():
                yield Difference(arrays, at, ranks, True, what)
        return
    count = None
    signed = [(t, 1) for t in first] + [(t, -1) for t in second]
    for t, sign in signed:
        at = t.relation.range()
        space = isl.LocalSpace.from_space(at.get_space())
        value = isl.Aff.zero_on_domain(space) + sign * t.coefficient
        part = isl.PwAff.from_aff(value).intersect_domain(at)
        count = part if count is None else count.union_add(part)
    assert count is not None
    at = count.non_zero_set()
    if not at.is_empty():
        yield Difference(arrays, at, ranks, True)


def _of_repeats(
    arrays: tuple[str, ...], first: list[_Listed], second: list[_Listed]
) -> Iterator[Difference]:
    """Candidates where a product comes more than once in a term."""
    ranks = (*first, *second)[0].ranks

    def all_of(side: list[_Listed]) -> Any:
        sets = [t.relation.range() for t in side]
        return reduce(lambda a, b: a | b, sets) if sets else None

    ours, theirs = all_of(first), all_of(second)
    for left, right in ((theirs, ours), (ours, theirs)):
        if left is not None:
            at = left if right is None else left - right
            if not at.is_empty():
                yield Difference(arrays, at, ranks, is_certain=False)
    once = [all(t.is_injective for t in side) for side in (first, second)]
    if once[0] != once[1]:
        for side in (first, second):
            for t in side:
                if not t.is_injective:
                    relation = t.relation
                    twice = relation.apply_range(relation.reverse())
                    space = relation.domain().get_space()
                    twice &= isl.Map.lex_lt(space)
                    at = twice.domain().apply(relation)
                    yield Difference(arrays, at, ranks, is_certain=False)


def _called(first: Sum, second: Sum, clock: Callable[[], None]) -> Iterator[Difference]:
    """Differences of the terms that are functions of sums."""
    mine, theirs = _by_function(first), _by_function(second)
    for key in sorted({*mine, *theirs}, key=str):
        function, _, _ = key
        clock()
        sides = mine.get(key, []), theirs.get(key, [])
        domains = [
            reduce(lambda a, b: a | b, [t.index.domain() for t in side])
            if side
            else None
            for side in sides
        ]
        ours, other = domains
        if ours is None or other is None or not ours.is_equal(other):
            at = ours if other is None else other if ours is None else None
            if at is None:
                assert ours is not None
                assert other is not None
                at = (ours - other) | (other - ours)
            rank = at.dim(isl.dim_type.set)
            yield Difference((function,), at.reset_tuple_id(), (rank,), False)
            continue
        count = len(sides[0][0].calls[0][1])
        for n in range(count):
            arguments = [
                _joined([t.calls[0][1][n].within(t.index.domain()) for t in side])
                for side in sides
            ]
            for found in differences(arguments[0], arguments[1], clock):
                # The function may hide the difference: a run decides.
                yield replace(found, is_certain=False)


def _joined(parts: list[Sum]) -> Sum:
    terms = tuple(t for part in parts for t in part.terms)
    whole = all(p.is_atom for p in parts), all(p.is_chain for p in parts)
    return Sum(terms, *whole)


def _stands_alone(value: Sum) -> bool:
    """Whether every function's value is a result by itself, not multiplied or summed."""
    seen: dict[Any, Any] = {}
    for term in value.terms:
        if not term.calls:
            continue
        if term.factors or len(term.calls) != 1 or not term.is_plain:
            return False
        ((function, arguments),) = term.calls
        key, where = (function, len(arguments)), term.index.domain()
        if key in seen and not seen[key].is_disjoint(where):
            return False  # one is added to another
        seen[key] = seen[key] | where if key in seen else where
    return True


def _by_function(value: Sum) -> dict[tuple[str, int, int], list[Term]]:
    """The terms that are a function's value, by function, arguments and coefficient."""
    found: dict[tuple[str, int, int], list[Term]] = {}
    for term in value.terms:
        if not term.calls:
            continue
        function, arguments = term.calls[0]
        key = function, len(arguments), term.coefficient
        found.setdefault(key, []).append(term)
    return found


def swapped(first: Sum, second: Sum, clock: Callable[[], None]) -> tuple[bool, Any]:
    """Whether equal sums add the same products in the same order.

    Returns:
        True and None; or False and, if there is one, a pair of products that swap: a set
        of points (context, elements, context, elements) with the factors' arrays and
        ranks, as a :class:`Difference`.
    """
    if first.is_atom and second.is_atom and not _has_calls(first, second):
        return True, None
    if not (_stands_alone(first) and _stands_alone(second)):
        return False, None
    for key, mine in _by_function(first).items():
        theirs = _by_function(second)[key]
        for n in range(len(mine[0].calls[0][1])):
            sides = [
                _joined([t.calls[0][1][n].within(t.index.domain()) for t in side])
                for side in (mine, theirs)
            ]
            same, pair = swapped(sides[0], sides[1], clock)
            if not same:
                return same, pair
    plain = [
        Sum(tuple(t for t in s.terms if not t.calls), s.is_atom, s.is_chain)
        for s in (first, second)
    ]
    if not plain[0].terms and not plain[1].terms:
        alone = len(first.terms) == len(_by_function(first))
        return alone, None
    if _has_calls(first, second) or not (first.is_chain and second.is_chain):
        return False, None
    ours = [t for side in _by_arrays(plain[0]).values() for t in side]
    theirs = [t for side in _by_arrays(plain[1]).values() for t in side]
    if any(t.time is None for t in (*ours, *theirs)):
        same = all(t.time is None for t in ours) == all(t.time is None for t in theirs)
        starts = [sorted(t.arrays for t in x if t.time is None) for x in (ours, theirs)]
        if not same or starts[0] != starts[1]:
            return False, None
        ours = [t for t in ours if t.time is not None]
        theirs = [t for t in theirs if t.time is not None]
    if not all(t.is_injective for t in (*ours, *theirs)):
        return False, None
    parts = [sum(t.relation.n_basic_map() for t in side) for side in (ours, theirs)]
    if max(parts) > _PARTS:
        raise Beyond(f"the order of the sums was not compared: {max(parts)} cases")
    for a, b in product(ours, ours):
        for c, d in product(theirs, theirs):
            if (a.arrays, b.arrays) != (c.arrays, d.arrays):
                continue
            clock()
            pair = _swap(a, b, c, d)
            if pair is not None:
                return False, pair
    return True, None


#: Convex parts of a sum whose order is compared. Their number enters with the fourth
#: power, and isl was seen to crash on unions of thousands of parts.
_PARTS = 8


def _has_calls(*sums: Sum) -> bool:
    return any(t.calls for s in sums for t in s.terms)


def _swap(a: _Listed, b: _Listed, c: _Listed, d: _Listed) -> Difference | None:
    """Two products of one result, first a then b here, and d before c there."""
    rank = a.ranks[0]
    contexts = [
        t.relation.project_out(
            isl.dim_type.out, rank, t.relation.dim(isl.dim_type.out) - rank
        )
        for t in (a, b)
    ]
    together = contexts[0].apply_range(contexts[1].reverse())
    here = (a.time.lex_lt_map(b.time) & together).coalesce()
    if here.is_empty():
        return None
    # The same products in the other program, told from the points of this one.
    there_a = (
        a.relation.apply_range(c.relation.reverse()).apply_range(c.time).coalesce()
    )
    there_b = (
        b.relation.apply_range(d.relation.reverse()).apply_range(d.time).coalesce()
    )
    pairs = here & there_a.lex_gt_map(there_b)
    if pairs.is_empty():
        return None
    both = a.relation.reverse().apply_range(pairs).apply_range(b.relation)
    at = both.wrap().flatten()
    return Difference((*a.arrays, "", *b.arrays), at, (*a.ranks, *b.ranks), True)
