"""The protocol of accelerator models: a product in, a cost out.

An accelerator turns one :class:`~elision.products.LayerProduct` into one
:class:`Cost`. It counts; the prices come from an energy table, so that energy is counts
times prices and nothing else.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

from elision.accelerators.timing import Phase, Timing
from elision.common.checks import integer, number
from elision.common.columns import Column, column, columns
from elision.common.declared import fit_fields
from elision.products import Conv2dGeometry, Geometry, LayerProduct, Product

__all__ = [
    "QUANTITIES",
    "Accelerator",
    "Cost",
    "ceil_div",
    "check_integer",
    "check_positive",
    "planar",
    "squarest_grid",
]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a product, or of a sum of products, on one machine.

    Costs of the same machine add with ``+`` (and ``sum``): counts add, the area stays.

    Attributes:
        cycles: clock cycles.
        multiplies: products issued to the multipliers. A machine that skips zeros
            issues non-zero products only; a dense one issues every product.
        valid_multiplies: products that belong to an output of the layer.
        redundant_multiplies: redundant Cartesian products executed (RCPs): non-zero
            products of an outer-product convolution that belong to no output.
        multiplier_slots: multipliers x cycles, the products that could have been
            issued.
        accesses: ``"<memory>.<read|write>"`` -> number of 32-bit words.
        operations: other counted actions (``"multiply"``, ``"add"``, ``"compare"``,
            ...).
        details: further additive figures of a model that cost nothing themselves
            (stall cycles, issue steps, ...).
        prices_pj: energy of one of each of the accesses and operations.
        area_mm2: area of the machine as far as the energy table prices it; None if it
            has no areas.
        notes: sentences that belong beside the figures, each once.
        machine: the machine with its parameters, as text; empty where none is named.
            Not part of a comparison.

    Raises:
        ValueError: an access or an operation without a price.

    Example:
        >>> prices = {"multiply": 4.0}
        >>> one = Cost(cycles=2, operations={"multiply": 10}, prices_pj=prices)
        >>> (one + one).cycles, (one + one).energy_pj
        (4, 80.0)
    """

    cycles: int = column("cycles", ",", default=0)
    multiplies: int = column("issued", ",", default=0)
    valid_multiplies: int = column("valid", ",", default=0)
    redundant_multiplies: int = column("redundant", ",", default=0)
    multiplier_slots: int = column("multiplier slots", ",", default=0)
    accesses: Mapping[str, int] = field(default_factory=dict)
    operations: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)
    prices_pj: Mapping[str, float] = field(default_factory=dict, repr=False)
    area_mm2: float | None = column("area, mm²", ".3f", default=None)
    notes: tuple[str, ...] = ()
    machine: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        unpriced = (
            self.accesses.keys() | self.operations.keys()
        ) - self.prices_pj.keys()
        if unpriced:
            raise ValueError(f"no price for {', '.join(sorted(unpriced))}")

    @property
    def utilisation(self) -> float:
        """Share of the multiplier slots that issued a product; 0 without cycles."""
        slots = self.multiplier_slots
        return self.multiplies / slots if slots else 0.0

    @property
    def stall_cycles(self) -> float | None:
        """Cycles of waiting for the DRAM, which ``cycles`` leaves out.

        None for a machine that does not model its DRAM.
        """
        return self.details.get("stall_cycles")

    @property
    def energy_breakdown_pj(self) -> dict[str, float]:
        """Energy by component: count times price for every operation and access."""
        counts = {**self.operations, **self.accesses}
        return {name: n * self.prices_pj[name] for name, n in counts.items()}

    @property
    def energy_pj(self) -> float:
        """Sum of the breakdown: on chip, and of the DRAM where the machine models it.

        Machines that do not model their DRAM compare with those that do by
        :attr:`energy_on_chip_pj` alone.
        """
        return sum(self.energy_breakdown_pj.values())

    @property
    def energy_on_chip_pj(self) -> float:
        """Energy without the DRAM, which every machine counts."""
        breakdown = self.energy_breakdown_pj.items()
        return sum(pj for name, pj in breakdown if not name.startswith(_DRAM))

    @property
    def energy_dram_pj(self) -> float | None:
        """Energy of the DRAM; None for a machine that does not model its DRAM."""
        breakdown = self.energy_breakdown_pj.items()
        off_chip = [pj for name, pj in breakdown if name.startswith(_DRAM)]
        return sum(off_chip) if off_chip else None

    def __add__(self, other: "Cost") -> "Cost":
        """Both costs, one after the other, on the same machine.

        Raises:
            ValueError: the two are of two machines, or were priced differently.
        """
        if not isinstance(other, Cost):
            return NotImplemented
        if self.machine and other.machine and self.machine != other.machine:
            raise ValueError(
                f"costs of two machines do not add: {self.machine} and {other.machine}"
            )
        for name in self.prices_pj.keys() & other.prices_pj.keys():
            if self.prices_pj[name] != other.prices_pj[name]:
                raise ValueError(
                    f"costs of two machines do not add: {name} costs "
                    f"{self.prices_pj[name]} pJ here and {other.prices_pj[name]} there"
                )
        summed: dict[str, Any] = {
            name: getattr(self, name) + getattr(other, name) for name in _COUNTS
        } | {
            name: _add(getattr(self, name), getattr(other, name))
            for name in _NAMED_COUNTS
        }
        areas = [a for a in (self.area_mm2, other.area_mm2) if a is not None]
        return Cost(
            **summed,
            prices_pj={**self.prices_pj, **other.prices_pj},
            area_mm2=max(areas, default=None),
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
            machine=self.machine or other.machine,
        )

    def __radd__(self, other: Any) -> "Cost":
        """``sum(costs)`` starts from 0."""
        return self if other == 0 else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON and tables: all quantities, and counts by name."""
        named = {name: dict(getattr(self, name)) for name in _NAMED_COUNTS}
        breakdown = {"energy_breakdown_pj": self.energy_breakdown_pj}
        return {n: getattr(self, n) for n in QUANTITIES} | named | breakdown


#: Accesses of the off-chip memory are named so.
_DRAM = "dram."

#: Fields of a cost that add, and those whose entries do.
_COUNTS = tuple(name for name in columns(Cost) if name != "area_mm2")
_NAMED_COUNTS = ("accesses", "operations", "details")

#: Single figures of a cost by the attribute's name, which files use too, and as people
#: read them.
QUANTITIES: Mapping[str, Column] = columns(Cost) | {
    "utilisation": Column("multiplier use", ".1f", " %", scale=100),
    "stall_cycles": Column("stalls", ","),
    "energy_pj": Column("energy in all, nJ", ",.0f", scale=1e-3),
    "energy_on_chip_pj": Column("energy on chip, nJ", ",.0f", scale=1e-3),
    "energy_dram_pj": Column("DRAM, nJ", ",.0f", scale=1e-3),
}


def _add(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}


class Accelerator(ABC):
    """A machine that executes the products of training, one layer product at a time.

    Members are frozen dataclasses whose fields are the machine's parameters, each with
    a documented default and source, and one method, :meth:`run`. A cost is a pure
    function of the product: equal products cost the same in whatever notation
    (:mod:`elision.products.canonical`), and a value-blind machine never reads values.

    Raises:
        ValueError: a parameter is not of its declared type.

    Example:
        >>> from elision.products import MatmulGeometry, Product
        >>> @dataclass(frozen=True)
        ... class OnePerCycle(Accelerator):
        ...     value_blind = True
        ...     multiplier_count = 1
        ...     def run(self, product):
        ...         return Cost(cycles=product.dense_macs)
        >>> OnePerCycle().cost(LayerProduct(Product.FORWARD, MatmulGeometry(2, 3, 4))).cycles
        24
    """

    #: True if the cost depends on the shape alone, so that operands may be None.
    value_blind: bool = False

    #: What needs the operands of a machine that is not value-blind, for messages.
    reads_values: ClassVar[str] = "this machine"

    #: True if the two gradients of a layer run together, see :meth:`cost_pair`.
    interleaves: ClassVar[bool] = False

    #: Parameters left out of sweeps because the name means something else on this machine.
    not_swept: ClassVar[tuple[str, ...]] = ()

    #: Parameters of sweeps that are stored under another name: name -> (parameter, function
    #: of the given value).
    swept_as: ClassVar[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {}

    def __post_init__(self) -> None:
        """Fit the parameters to their declared types; members check ranges after it."""
        fit_fields(self)

    @classmethod
    def sized(cls, multipliers: int, **given: Any) -> dict[str, Any]:
        """Parameters that give the machine so many multipliers in all, for sweeps.

        Args:
            multipliers: all of the machine's multipliers.
            **given: parameters that are fixed already.

        Returns:
            Values by parameter; empty for a machine that has elements of its own to sweep,
            or no choice.

        Raises:
            ValueError: there is no such machine.
        """
        del multipliers, given
        return {}

    @property
    @abstractmethod
    def multiplier_count(self) -> int:
        """Multipliers of the whole machine, by which machines are alike in size."""

    @abstractmethod
    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product in its canonical form.

        Args:
            product: with masks for operands (boolean arrays), which are None for a
                value-blind machine.
        """

    def run_pair(self, input_grad: LayerProduct, weight_grad: LayerProduct) -> Cost:
        """Cost of both gradients in canonical form: one after the other, by default."""
        return self.run(input_grad) + self.run(weight_grad)

    @final
    def cost(self, product: LayerProduct) -> Cost:
        """Cost of one product of one layer.

        Raises:
            ValueError: the operands are needed and absent, or hold a NaN or infinity.
        """
        return replace(self.run(self.seen(product)), machine=repr(self))

    @final
    def cost_pair(self, input_grad: LayerProduct, weight_grad: LayerProduct) -> Cost:
        """Cost of both gradients of one layer: one after the other, unless interleaved.

        Raises:
            ValueError: as :meth:`cost`.
        """
        pair = self.run_pair(self.seen(input_grad), self.seen(weight_grad))
        return replace(pair, machine=repr(self))

    def seen(self, product: LayerProduct) -> LayerProduct:
        """The product as the machine sees it: canonical, and blind if the machine is."""
        if self.value_blind:
            return product.canonical_shape
        if product.first is None:
            raise ValueError(
                f"{product!r}: {self.reads_values} needs the operands, which are None"
            )
        return product.canonical

    def timing(self, job: tuple[LayerProduct, ...]) -> Timing:
        """Busy intervals of the machine's ports during a product or a pair of gradients.

        A machine without a model of its ports is busy as a whole.
        """
        cost = self.cost_pair(*job) if len(job) == 2 else self.cost(job[0])
        return Timing(1, cost.cycles, (Phase("array", "run", 0, cost.cycles),))


def planar(kind: Product, geometry: Geometry) -> tuple[Product, Conv2dGeometry]:
    """The product of a 2-D convolution that a machine of planes or matrices runs.

    A transposed convolution's forward product and input gradient change places, a
    matrix product has 1x1 taps (:meth:`~elision.products.Geometry.as_convolution`).

    Raises:
        ValueError: a convolution of another rank.
    """
    kind, convolution = geometry.as_convolution(kind)
    if not isinstance(convolution, Conv2dGeometry):
        raise ValueError(
            f"{geometry}: this machine runs matrix products and 2-D convolutions only"
        )
    return kind, convolution


def squarest_grid(elements: int) -> tuple[int, int]:
    """The most nearly square grid with this number of elements.

    Raises:
        ValueError: ``elements`` is not an integer of at least 1.

    Example:
        >>> squarest_grid(12)
        (3, 4)
    """
    elements = integer("grid", "elements", elements)
    rows = next(n for n in range(math.isqrt(elements), 0, -1) if elements % n == 0)
    return rows, elements // rows


def check_integer(owner: object, minimum: int, *names: str) -> None:
    """Raise ValueError unless each named parameter is an integer >= ``minimum``."""
    for name in names:
        integer(type(owner).__name__, name, getattr(owner, name), f">= {minimum}")


def check_positive(owner: object, *names: str) -> None:
    """Raise ValueError unless each named parameter is a finite number above 0."""
    for name in names:
        number(type(owner).__name__, name, getattr(owner, name), "(0, inf)")


def ceil_div(numerator: Any, denominator: int) -> Any:
    """``ceil(numerator / denominator)`` of integers or integer arrays."""
    return -(-numerator // denominator)
