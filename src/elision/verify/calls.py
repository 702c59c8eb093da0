"""Function values inside sums, by names that two programs share.

A function of which nothing is known is compared by its arguments. Where its value is
multiplied or summed over, it gets a name: the function and the first element, in the
order of subscripts, of the products that its arguments hold. Values of one name have been
shown to have equal arguments, so that a name stands for one value in both programs, as
an input does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import islpy as isl

from elision.verify.values import Beyond, Sum, Term

__all__ = ["named"]

#: Compares two sums over one context; whether they are equal.
Equal = Callable[[Sum, Sum], bool]


@dataclass(frozen=True)
class _Site:
    """One call: its arguments over the points of its term, and the points."""

    function: str
    arguments: tuple[Sum, ...]
    points: Any

    def key(self) -> tuple[str, Any]:
        """The name that stands for the call, and its subscripts from the points."""
        found: dict[tuple[str, ...], Any] = {}
        for argument in self.arguments:
            for term in argument.terms:
                if term.calls or not term.factors:
                    continue
                order = sorted(term.factors, key=lambda f: f[0])
                maps = [_bare(m) for _, m in order]
                to = reduce(lambda a, b: a.flat_range_product(b), maps)
                to = to if term.is_plain else term.index.apply_range(to)
                arrays = tuple(a for a, _ in order)
                found[arrays] = found[arrays] | to if arrays in found else to
        for arrays in sorted(found):
            to = found[arrays].intersect_domain(self.points)
            if to.domain().is_equal(self.points):
                return f"{self.function}({'·'.join(arrays)})", to.lexmin()
        raise Beyond(
            f"{self.function}(...) inside a sum: no product of its arguments names it"
        )


def _bare(relation: Any) -> Any:
    if relation.has_tuple_id(isl.dim_type.out):
        return relation.reset_tuple_id(isl.dim_type.out)
    return relation


def named(first: Sum, second: Sum, equal: Equal) -> tuple[Sum, Sum]:
    """Two sums with names in place of the calls inside them.

    Args:
        first: a sum.
        second: another, over the same context.
        equal: compares the arguments of calls.

    Raises:
        Beyond: a call that has no name, or two of one name with different arguments.
    """
    kept: dict[str, list[tuple[Any, _Site]]] = {}

    def of(term: Term) -> Term:
        factors = list(term.factors)
        points = term.index.range()
        for function, given in term.calls:
            # Calls inside of arguments get their names first.
            arguments = tuple(replace(a, terms=tuple(map(of, a.terms))) for a in given)
            site = _Site(function, arguments, points)
            name, key = site.key()
            for others, other in _meeting(kept.setdefault(name, []), key):
                if len(other.arguments) != len(arguments) or not all(
                    equal(a, b)
                    for a, b in zip(
                        _at(arguments, key, others),
                        _at(other.arguments, others, key),
                        strict=True,
                    )
                ):
                    raise Beyond(
                        f"{function}(...) inside a sum has different arguments where "
                        "the first product of them is the same"
                    )
            _single(site, key, equal)
            kept[name].append((key, site))
            factors.append((name, key))
        return replace(term, factors=tuple(factors), calls=())

    return (
        replace(first, terms=tuple(map(of, first.terms)), is_chain=False),
        replace(second, terms=tuple(map(of, second.terms)), is_chain=False),
    )


def _meeting(sites: list[tuple[Any, _Site]], key: Any) -> Iterator[tuple[Any, _Site]]:
    """The sites of one name whose subscripts meet."""
    for others, site in sites:
        if not (others.range() & key.range()).is_empty():
            yield others, site


def _at(arguments: tuple[Sum, ...], key: Any, other: Any) -> list[Sum]:
    """Arguments over the subscripts that two sites share, at one point for each."""
    shared = key.range() & other.range()
    point = key.reverse().intersect_domain(shared).lexmin()
    return [a.over(point) for a in arguments]


def _single(site: _Site, key: Any, equal: Equal) -> None:
    """That all points of one name have the same arguments."""
    if key.is_injective():
        return
    one = key.apply_range(key.reverse().lexmin())
    for argument in site.arguments:
        if not equal(argument.within(site.points), argument.over(one)):
            raise Beyond(
                f"{site.function}(...) inside a sum has different arguments where the "
                "first product of them is the same"
            )
