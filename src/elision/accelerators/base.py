"""What an accelerator model is, and what it answers: a cost.

An accelerator turns one :class:`~elision.products.LayerProduct` into one
:class:`Cost`. It counts; the prices come from an energy table, so that energy is counts
times prices and nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elision.products import Conv2dGeometry, Geometry, LayerProduct, Product

__all__ = ["Accelerator", "Cost", "ceil_div", "check_integer", "planar"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a product, or a sum of products, costs on one machine.

    Costs of the same machine add with ``+`` (and ``sum``): counts add, the area stays.

    Attributes:
        cycles: clock cycles.
        multiplies: products issued to the multipliers. A machine that skips zeros
            issues non-zero products only; a dense one issues every product.
        valid_multiplies: those that belong to an output of the layer.
        redundant_multiplies: redundant Cartesian products executed (RCPs): non-zero
            products of an outer-product convolution that belong to no output.
        multiplier_slots: multipliers x cycles, what could have been issued.
        accesses: ``"<memory>.<read|write>"`` -> number of 32-bit words.
        operations: other counted actions (``"multiply"``, ``"add"``, ``"compare"``,
            ...).
        details: further additive figures that a model reports and that cost nothing
            themselves (stall cycles, issue steps, ...).
        prices_pj: energy of one of each of the accesses and operations.
        area_mm2: area of the machine as far as the energy table prices it.
    """

    cycles: int = 0
    multiplies: int = 0
    valid_multiplies: int = 0
    redundant_multiplies: int = 0
    multiplier_slots: int = 0
    accesses: Mapping[str, int] = field(default_factory=dict)
    operations: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)
    prices_pj: Mapping[str, float] = field(default_factory=dict, repr=False)
    area_mm2: float = 0.0

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

        None where a machine does not model its DRAM.
        """
        return self.details.get("stall_cycles")

    @property
    def energy_breakdown_pj(self) -> dict[str, float]:
        """Energy by component: count times price for every operation and access."""
        counts = {**self.operations, **self.accesses}
        return {name: n * self.prices_pj[name] for name, n in counts.items()}

    @property
    def energy_pj(self) -> float:
        """Total energy: the sum of the breakdown."""
        return sum(self.energy_breakdown_pj.values())

    def __add__(self, other: "Cost") -> "Cost":
        """Both costs, one after the other, on the same machine.

        Raises:
            ValueError: the two were priced differently, so they are of two machines.
        """
        if not isinstance(other, Cost):
            return NotImplemented
        for name in self.prices_pj.keys() & other.prices_pj.keys():
            if self.prices_pj[name] != other.prices_pj[name]:
                raise ValueError(
                    f"costs of two machines do not add: {name} costs "
                    f"{self.prices_pj[name]} pJ here and {other.prices_pj[name]} there"
                )
        return Cost(
            cycles=self.cycles + other.cycles,
            multiplies=self.multiplies + other.multiplies,
            valid_multiplies=self.valid_multiplies + other.valid_multiplies,
            redundant_multiplies=self.redundant_multiplies + other.redundant_multiplies,
            multiplier_slots=self.multiplier_slots + other.multiplier_slots,
            accesses=_add(self.accesses, other.accesses),
            operations=_add(self.operations, other.operations),
            details=_add(self.details, other.details),
            prices_pj={**self.prices_pj, **other.prices_pj},
            area_mm2=max(self.area_mm2, other.area_mm2),
        )

    def __radd__(self, other: Any) -> "Cost":
        """``sum(costs)`` starts from 0."""
        return self if other == 0 else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON and tables."""
        return {
            "cycles": self.cycles,
            "multiplies": self.multiplies,
            "valid_multiplies": self.valid_multiplies,
            "redundant_multiplies": self.redundant_multiplies,
            "utilisation": self.utilisation,
            "accesses": dict(self.accesses),
            "operations": dict(self.operations),
            "details": dict(self.details),
            "energy_pj": self.energy_pj,
            "energy_breakdown_pj": self.energy_breakdown_pj,
            "area_mm2": self.area_mm2,
        }


def _add(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}


class Accelerator(ABC):
    """A machine that executes the products of training, one layer product at a time.

    Members are frozen dataclasses whose fields are the machine's parameters, each with
    a documented default and source; ``cost`` is a pure function of the product.
    """

    #: Whether the cost depends on the shape alone, so that operands may be None.
    value_blind: bool = False

    @abstractmethod
    def cost(self, product: LayerProduct) -> Cost:
        """Cost of one product of one layer.

        Raises:
            ValueError: the operands are needed and absent, or hold a NaN or infinity.
        """


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


def check_integer(owner: object, minimum: int, *names: str) -> None:
    """Raise ValueError unless each named parameter is an integer >= ``minimum``."""
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(
                f"{type(owner).__name__}({name}={value!r}): "
                f"must be an integer >= {minimum}"
            )


def ceil_div(numerator: Any, denominator: int) -> Any:
    """``ceil(numerator / denominator)`` of integers or integer arrays."""
    return -(-numerator // denominator)
