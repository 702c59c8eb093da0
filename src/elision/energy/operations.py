"""Energy of counted operations and moved bytes by a table: a model, never a measurement.

A product's multiplications and additions are priced by an energy table of
:mod:`elision.accelerators.energy`, in the number formats that it is computed in. Its bytes
are its compulsory traffic: each operand read once from memory, the result written once, at
the table's DRAM price. What caches, control and idle silicon cost is not in it: on a
processor that is most of the energy.

*Dense* is the same product in float32 with nothing left out. A recipe leaves out the
multiplications that its transforms leave out, and stores an operand that it thins as its
kept values and a bit for each place (own choice).

Tables differ. The two that ship, of 40 and 45 nm, price a multiplication of 32-bit integers
4.1 times apart; every figure here is therefore a range, a factor of the square root of the
largest such disagreement either way (:func:`table_uncertainty`). The ratio of two figures
by one table is not touched by it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

from elision.accelerators.energy import DRAM, TABLES, EnergyTable, energy_table
from elision.accelerators.numbers import FLOAT32, WORD_BITS, numbers_of
from elision.products import LayerProduct

__all__ = [
    "OperationEnergy",
    "operation_energy",
    "table_uncertainty",
    "total_operations",
]


@dataclass(frozen=True)
class OperationEnergy:
    """Counted operations and bytes of one product, or of several, and their price.

    Attributes:
        dense_macs, done_macs: multiply-accumulates, all of them and those left to do.
        dense_bytes, done_bytes: compulsory traffic, in float32 and as the recipe stores it.
        dense_arithmetic_pj, done_arithmetic_pj: multiplications and additions.
        dense_moved_pj, done_moved_pj: the traffic at the price of the table's DRAM.

    Example:
        >>> one = OperationEnergy(10, 5.0, 40, 20.0, 46.0, 23.0, 6500.0, 3250.0)
        >>> (one + one).done_pj, one.ratio
        (6546.0, 0.5)
    """

    dense_macs: float
    done_macs: float
    dense_bytes: float
    done_bytes: float
    dense_arithmetic_pj: float
    done_arithmetic_pj: float
    dense_moved_pj: float
    done_moved_pj: float

    def __add__(self, other: "OperationEnergy") -> "OperationEnergy":
        """Both together."""
        names = (field.name for field in fields(self))
        return OperationEnergy(*(getattr(self, n) + getattr(other, n) for n in names))

    @property
    def dense_pj(self) -> float:
        """Arithmetic and traffic with nothing left out, at the table's prices."""
        return self.dense_arithmetic_pj + self.dense_moved_pj

    @property
    def done_pj(self) -> float:
        """Arithmetic and traffic as the recipe leaves them."""
        return self.done_arithmetic_pj + self.done_moved_pj

    @property
    def ratio(self) -> float:
        """Done over dense energy; 1 where there was none."""
        return self.done_pj / self.dense_pj if self.dense_pj else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def operation_energy(
    product: LayerProduct,
    work: Mapping[str, float] | None = None,
    *,
    table: str | EnergyTable = "horowitz-45nm",
) -> OperationEnergy:
    """Energy of one product by a table.

    Args:
        product: shape and number formats; values are not read.
        work: per operand name, the fraction of the multiplications that its transform
            leaves to do, ``"result"`` that of the result's values that is computed
            (:class:`elision.layers.observation.Observation`); None: all.
        table: name, or path, of the prices.

    Raises:
        ValueError: an unknown table, or one that lacks a price (named), the DRAM's
            included.

    Example:
        >>> from elision.products import MatmulGeometry, Product
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(2, 3, 4))
        >>> found = operation_energy(product, {"weight": 0.5})
        >>> found.dense_macs, found.done_macs, found.dense_bytes
        (24, 12.0, 104)
        >>> round(found.dense_arithmetic_pj, 1), found.dense_moved_pj
        (110.4, 16900.0)
    """
    prices = energy_table(table) if isinstance(table, str) else table
    left = dict(work or {})
    numbers = numbers_of(product.arithmetic)
    price = prices.prices(
        {"multiply": numbers.multiply, "add": numbers.add}, {"memory": DRAM}
    )
    dense = prices.prices({"multiply": FLOAT32.multiply, "add": FLOAT32.add}, {})
    done_macs = product.dense_macs * math.prod(left.values())
    widths = numbers.by_operand(product.kind) | {product.kind.absent: numbers.result}
    dense_bits, done_bits = 0, 0.0
    for name, bits in widths.items():
        values = math.prod(product.geometry.shape_of(name))
        kept = left.get("result" if name == product.kind.absent else name, 1.0)
        dense_bits += values * WORD_BITS
        done_bits += values * kept * float(bits) + (values if kept < 1 else 0)
    word = price["memory.read"] / WORD_BITS
    return OperationEnergy(
        product.dense_macs,
        done_macs,
        dense_bits // 8,
        done_bits / 8,
        product.dense_macs * (dense["multiply"] + dense["add"]),
        done_macs * (price["multiply"] + price["add"]),
        dense_bits * word,
        done_bits * word,
    )


def total_operations(parts: Iterable[OperationEnergy]) -> OperationEnergy:
    """Sum of parts; zeros of none."""
    return sum(parts, OperationEnergy(*[0.0] * len(fields(OperationEnergy))))


@cache
def table_uncertainty() -> float:
    """Factor either way by which a table's figure may be off.

    The square root of the largest disagreement of the shipped tables on one action: the
    figure then lies between what either table would say.

    Example:
        >>> round(table_uncertainty(), 2)
        2.02
    """
    first, second = (energy_table(name).energy_pj for name in TABLES)
    both = [a for a in first if a in second and a.endswith("_int32")]
    ratios = [max(first[a] / second[a], second[a] / first[a]) for a in both]
    return math.sqrt(max(ratios))
