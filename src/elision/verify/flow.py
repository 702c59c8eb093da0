"""Where a value that a statement reads was made: the dataflow of a program, by isl.

A read element holds what the last ``=`` statement before wrote (its *definition*), or
what was there at the start, plus everything that ``+=`` statements have added since (its
*contributions*).
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import islpy as isl

from elision.verify.polyhedra import Instances
from elision.verify.program import Element

__all__ = ["Flow", "Sources"]


@dataclass(frozen=True)
class Sources:
    """Sources of the values that one access reads.

    Attributes:
        element: relation from the reading instances to the element.
        definitions: by statement, relation from the reading to the defining instance.
        contributions: by statement, relation from the reading to the adding instances.
        undefined: reading instances that see what was there at the start.

    Example:
        >>> Sources(None, {}, {}, None).definitions
        {}
    """

    element: Any
    definitions: dict[str, Any]
    contributions: dict[str, Any]
    undefined: Any


class Flow:
    r"""The dataflow of a program, access by access.

    Example:
        >>> from elision.verify.read import read
        >>> from elision.verify.polyhedra import context
        >>> p = read("for i in range(M):\n  t[i] = x[i]\n  y[i] = t[i]")
        >>> flow = Flow(Instances(p, ("M",), context((), ("M",))))
        >>> value = p.statements[1].assign.value
        >>> flow.sources("S1", value).definitions["S0"].is_bijective()
        True
    """

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self._known: dict[tuple[str, Element], Sources] = {}
        self._writes: dict[str, Any] = {}

    def write(self, name: str) -> Any:
        """The relation from a statement's instances to the element that each writes."""
        if name not in self._writes:
            target = self.instances.statements[name].assign.target
            self._writes[name] = self.instances.access(name, target)
        return self._writes[name]

    def writers(self, array: str, adding: bool) -> list[str]:
        """The statements that write an array, those with ``+=`` or those with ``=``."""
        return [
            s.name
            for s in self.instances.statements.values()
            if s.assign.target.array == array and s.assign.adds is adding
        ]

    def sources(self, name: str, element: Element) -> Sources:
        """Sources of an element in the value of a statement."""
        key = name, element
        if key not in self._known:
            access = self.instances.access(name, element)
            self._known[key] = self._sources(element.array, access, name)
        return self._known[key]

    def unset(self, name: str, element: Element) -> Any:
        """Instances of a statement that read an element before anything was written.

        The element may also be the target of a ``+=``, which reads it.
        """
        access = self.instances.access(name, element)
        defined = self._definitions(element.array, access, name)
        found = access.domain()
        for relation in defined.values():
            found -= relation.domain()
        if element is self.instances.statements[name].assign.target:
            return found
        for adder in self.writers(element.array, adding=True):
            found -= self._since(adder, access, defined, name).domain()
        return found

    def results(self, array: str, at: Any) -> Sources:
        """Sources of the elements ``at`` of an array when the program has ended."""
        return self._sources(array, at.identity(), None)

    def _sources(self, array: str, access: Any, reader: str | None) -> Sources:
        definitions = self._definitions(array, access, reader)
        contributions = {}
        for adder in self.writers(array, adding=True):
            found = self._since(adder, access, definitions, reader)
            if not found.is_empty():
                contributions[adder] = found
        undefined = access.domain()
        for relation in definitions.values():
            undefined -= relation.domain()
        return Sources(access, definitions, contributions, undefined)

    def _definitions(
        self, array: str, access: Any, reader: str | None
    ) -> dict[str, Any]:
        """By statement, the last definition of what an access reads."""
        inst = self.instances
        writers = self.writers(array, adding=False)
        if not writers:
            return {}
        if len(writers) == 1 and self.write(writers[0]).is_injective():
            # Every element is written once at most: no last one to look for.
            (only,) = writers
            found = access.apply_range(self.write(only).reverse())
            if reader is not None:
                found &= inst.before(only, reader).reverse()
            return {} if found.is_empty() else {only: found}
        name = reader or "End"
        if reader is None:
            access = access.set_tuple_name(isl.dim_type.in_, "End")
            time = self._end(access.domain())
        else:
            time = inst.schedule[reader]
        must = reduce(
            lambda a, b: a.union(b),
            (isl.UnionMap.from_map(self.write(w)) for w in writers),
        )
        order = reduce(
            lambda a, b: a.union(b),
            (
                isl.UnionMap.from_map(t)
                for t in (*(inst.schedule[w] for w in writers if w != reader), time)
            ),
        )
        info = isl.UnionAccessInfo.from_sink(isl.UnionMap.from_map(access))
        info = info.set_must_source(must).set_schedule_map(order)
        flow = info.compute_flow().get_must_dependence().reverse()
        found = {}
        for relation in maps_of(flow):
            source = relation.get_tuple_name(isl.dim_type.out)
            if relation.get_tuple_name(isl.dim_type.in_) != name:
                continue
            if reader is None:
                relation = relation.set_tuple_name(isl.dim_type.in_, array)
            found[source] = relation
        return found

    def _end(self, domain: Any) -> Any:
        """The time of the end of the program, after every statement."""
        top = len(self.instances.program.body)
        zero = isl.Set(f"{{ [{', '.join(['0'] * self.instances.depth)}] }}")
        zero = zero.align_params(domain.get_space())
        time = isl.Map.from_domain_and_range(domain, zero)
        return _shifted(time, top)

    def _since(
        self, adder: str, access: Any, definitions: dict[str, Any], reader: str | None
    ) -> Any:
        """Instances of a ``+=`` statement between the definition and the read."""
        inst = self.instances
        found = access.apply_range(self.write(adder).reverse())
        if reader is not None:
            found &= inst.before(adder, reader).reverse()
        for definition, relation in definitions.items():
            same = self.write(definition).apply_range(self.write(adder).reverse())
            if not (same & inst.before(adder, definition).reverse()).is_empty():
                # Some additions come before a definition: they are overwritten.
                after = relation.apply_range(inst.before(definition, adder))
                found = found.subtract_domain(relation.domain()) | (found & after)
        return found


def _shifted(time: Any, by: int) -> Any:
    """A time whose first place is larger by a constant."""
    fixed = time.drop_constraints_involving_dims(isl.dim_type.out, 0, 1)
    return fixed.fix_val(isl.dim_type.out, 0, isl.Val(by))


def maps_of(union: Any) -> list[Any]:
    """The relations in a union of relations."""
    found: list[Any] = []
    union.foreach_map(found.append)
    return found
