"""Machines of a sweep: accelerators by name, with every combination of parameters."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, signature
from typing import Any, NamedTuple

import numpy as np

from elision.accelerators import ACCELERATORS, Accelerator
from elision.accelerators.energy import checking_prices, energy_table
from elision.common.checks import integer
from elision.common.names import lookup
from elision.common.specs import Spec, arguments, parse
from elision.products import LayerProduct, MatmulGeometry, Product

__all__ = ["Machine", "check_prices", "machines"]


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
    def content(self) -> str:
        """All that its costs depend on: every parameter's value, and the prices."""
        built = self.build()
        energy = getattr(built, "energy", None)
        return f"{built!r} {energy_table(energy) if energy else ''}"


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

    Equal machines are given once. All are built, and their energy tables checked,
    because what is wrong with one is to be found before hours of work.

    Args:
        specs: accelerators (:mod:`elision.common.specs`); a parameter that is given here
            is not taken from the grid.
        grid: parameter -> values, such as ``{"multipliers": [2, 4], "window": [8,
            16]}``. An accelerator that lacks a parameter is not repeated for its
            values. ``elements`` compares like with like: an accelerator without
            elements of ``multipliers`` x ``multipliers`` gets as many multipliers in all.

    Raises:
        ValueError: unknown accelerator, a value out of range, a parameter that no
            accelerator takes from the grid, or all that the energy tables lack.

    Example:
        >>> [machine.spec for machine in machines(["ant", "systolic"], {"elements": [16]})]
        ['ant:elements=16', 'systolic:rows=16,columns=16']
    """
    grid = {name: list(dict.fromkeys(values)) for name, values in (grid or {}).items()}
    found: dict[Accelerator, Machine] = {}
    taken: set[str] = set()
    given = [_chosen(spec) for spec in specs]
    _check_names(grid, [name for name, _ in given])
    for name, fixed in given:
        axes = _axes(name, fixed, grid)
        taken |= {parameter for axis in axes for parameter in axis.parameters}
        for settings in itertools.product(*(axis.settings for axis in axes)):
            swept = dict(pair for setting in settings for pair in setting)
            machine = Machine(name, _in_order(name, fixed | swept))
            found.setdefault(machine.build(), machine)
    for parameter in (p for p in grid if p not in taken):
        names = ", ".join(dict.fromkeys(name for name, _ in given))
        raise ValueError(
            f"{parameter}={', '.join(map(str, grid[parameter]))} would be ignored: {names} "
            "lacks it or is given its own"
        )
    found_machines = list(found.values())
    check_prices(machine.build() for machine in found_machines)
    return found_machines


def check_prices(built: Iterable[Accelerator]) -> None:
    """Raise ValueError, naming everything, if machines lack prices in their energy tables.

    Each costs one multiplication. What is missing is found before hours of work, and an
    SRAM whose price is extrapolated is told.
    """
    with checking_prices():
        for machine in built:
            _ = machine.cost(_SMALLEST)


_ONE = np.ones((1, 1), np.float32)
_SMALLEST = LayerProduct(Product.FORWARD, MatmulGeometry(1, 1, 1), _ONE, _ONE)

#: Side of an element's multiplier array where none is swept: SCNN's and ANT's.
_SIDE = 4


class _Axis(NamedTuple):
    """One dimension of a machine's sweep.

    Attributes:
        parameters: of the grid, which it takes its values from.
        settings: pairs of the machine's own parameters and values.
    """

    parameters: tuple[str, ...]
    settings: list[tuple[tuple[str, Any], ...]]


def _axes(
    name: str, fixed: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]
) -> list[_Axis]:
    kind = ACCELERATORS[name]
    taken = {*fixed, *kind.not_swept}
    taken |= {alias for alias, (own, _) in kind.swept_as.items() if own in fixed}
    own = [p for p in grid if p in _parameters(kind) and p not in taken]
    axes = [_Axis((p,), [((p, value),) for value in grid[p]]) for p in own]
    if "elements" in grid and "elements" not in own:
        sides = grid.get("multipliers", [_SIDE])
        sizes = dict.fromkeys(
            integer("sweep", "elements", elements) * integer("sweep", "n", side) ** 2
            for elements in grid["elements"]
            for side in sides
        )
        settings = [tuple(kind.sized(size, **fixed).items()) for size in sizes]
        if all(settings) and not any(p in fixed for p, _ in settings[0]):
            swept = (
                ("elements", "multipliers") if "multipliers" in grid else ("elements",)
            )
            axes.append(_Axis(swept, settings))
    return axes


def _in_order(name: str, parameters: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Parameters in the machine's own order, so that equal machines are written alike."""
    order = [*_parameters(ACCELERATORS[name])]
    return tuple(sorted(parameters.items(), key=lambda pair: order.index(pair[0])))


def _check_names(grid: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise ValueError for a parameter that none of the accelerators has."""
    known: dict[str, None] = {"elements": None}
    for name in names:
        kind = lookup("accelerator", name, ACCELERATORS)
        known |= _parameters(kind)
    for parameter in grid:
        listed = ", ".join(dict.fromkeys(names))
        lookup(f"parameter of {listed}", parameter, known)
