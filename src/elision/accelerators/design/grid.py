"""Machines of a sweep: accelerators by name, with every combination of parameters."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, signature
from typing import Any

from elision.accelerators import ACCELERATORS, Accelerator
from elision.common.names import lookup
from elision.common.specs import Spec, arguments, parse

__all__ = ["Machine", "machines"]

#: What means another thing here than on other machines, and is not swept with theirs:
#: a dense array's multipliers are all that it has, not the side of an element's.
_NOT_SWEPT = {"dense": ("multipliers",)}


@dataclass(frozen=True)
class Machine:
    """An accelerator by name, with the parameters that differ from its defaults.

    Attributes:
        name: key of ``elision.accelerators.ACCELERATORS``.
        parameters: pairs of parameter and value.
    """

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()

    def build(self) -> Accelerator:
        """The accelerator.

        Raises:
            ValueError: unknown accelerator or parameter, or a value out of range.
        """
        kind = lookup("accelerator", self.name, ACCELERATORS)
        for name, _ in self.parameters:
            lookup(f"parameter of accelerator {self.name!r}", name, _parameters(kind))
        return kind(**dict(_setting(kind, *pair) for pair in self.parameters))

    @property
    def spec(self) -> str:
        """The machine as a person writes it."""
        return str(Spec(self.name, (), dict(self.parameters)))

    @property
    def parameters_json(self) -> str:
        """The parameters as text, equal for equal machines."""
        return json.dumps(dict(self.parameters), sort_keys=True)


def _parameters(kind: type[Accelerator]) -> dict[str, None]:
    """Names of a machine's parameters; ``elements`` may stand for its ``grid``."""
    names = dict.fromkeys(field.name for field in fields(kind))  # pyright: ignore[reportArgumentType]
    return names | {"elements": None} if "grid" in names else names


def _setting(kind: type[Accelerator], parameter: str, value: Any) -> tuple[str, Any]:
    """The parameter as the machine has it: so many elements as the squarest grid."""
    if parameter != "elements" or "grid" not in _parameters(kind):
        return parameter, value
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"elements must be an integer >= 1, got {value!r}")
    rows = next(n for n in range(math.isqrt(value), 0, -1) if value % n == 0)
    return "grid", (rows, value // rows)


def _chosen(spec: str) -> tuple[str, dict[str, Any]]:
    """The accelerator that a spec names, and its parameters by name."""
    read = parse(spec)
    kind = lookup("accelerator", read.name, ACCELERATORS)
    own = signature(kind).parameters
    more = [
        Parameter(name, Parameter.KEYWORD_ONLY)
        for name in _parameters(kind)
        if name not in own
    ]
    return read.name, arguments("accelerator", read, [*own.values(), *more])


def machines(
    specs: Iterable[str], grid: Mapping[str, Sequence[Any]] | None = None
) -> list[Machine]:
    """Every accelerator with every combination of the grid's parameters that it has.

    Args:
        specs: accelerators (:mod:`elision.common.specs`); a parameter that is given here
            is not taken from the grid.
        grid: parameter -> values, such as ``{"multipliers": [2, 4], "window": [8,
            16]}``. An accelerator that lacks a parameter is not repeated for its
            values. ``elements`` sets the ``grid`` of an accelerator that has one.

    Raises:
        ValueError: unknown accelerator, a value out of range, or a parameter that none
            of the accelerators has.
    """
    grid = dict(grid or {})
    chosen = [_chosen(spec) for spec in specs]
    known = {}
    for name, _ in chosen:
        known |= _parameters(lookup("accelerator", name, ACCELERATORS))
    for parameter in grid:
        names = ", ".join(dict.fromkeys(name for name, _ in chosen))
        lookup(f"parameter of {names}", parameter, known)
    found = []
    for name, given in chosen:
        has = _parameters(ACCELERATORS[name])
        fixed = {*given, *_NOT_SWEPT.get(name, ())}
        if "grid" in given:
            fixed.add("elements")
        own = [p for p in grid if p in has and p not in fixed]
        for values in itertools.product(*(grid[p] for p in own)):
            settings = zip(own, values, strict=True)
            machine = Machine(name, (*given.items(), *settings))
            machine.build()  # bad values are found before hours of work
            found.append(machine)
    return list(dict.fromkeys(found))
