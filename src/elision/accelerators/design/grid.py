"""Machines of a sweep: accelerators by name, with every combination of parameters."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, signature
from typing import Any

from elision.accelerators import ACCELERATORS, Accelerator
from elision.common.names import lookup
from elision.common.specs import Spec, arguments, parse

__all__ = ["Machine", "machines"]


@dataclass(frozen=True)
class Machine:
    """An accelerator by name, with the parameters that differ from its defaults.

    Attributes:
        name: key of ``elision.accelerators.ACCELERATORS``.
        parameters: pairs of parameter and value.

    Example:
        >>> Machine("scnn", (("elements", 32),)).build().grid
        (4, 8)
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
    """Names of a machine's parameters, then the names of its sweeps for others."""
    names = (field.name for field in fields(kind))  # pyright: ignore[reportArgumentType]
    return dict.fromkeys((*names, *kind.swept_as))


def _setting(kind: type[Accelerator], parameter: str, value: Any) -> tuple[str, Any]:
    """The machine's own parameter and value."""
    if parameter not in kind.swept_as:
        return parameter, value
    own, convert = kind.swept_as[parameter]
    return own, convert(value)


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
    """Every accelerator with every combination of the grid that applies to it.

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
        kind = ACCELERATORS[name]
        has = _parameters(kind)
        fixed = {*given, *kind.not_swept}
        fixed |= {alias for alias, (own, _) in kind.swept_as.items() if own in given}
        own = [p for p in grid if p in has and p not in fixed]
        for values in itertools.product(*(grid[p] for p in own)):
            settings = zip(own, values, strict=True)
            machine = Machine(name, (*given.items(), *settings))
            machine.build()  # bad values are found before hours of work
            found.append(machine)
    return list(dict.fromkeys(found))
