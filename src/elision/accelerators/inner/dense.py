"""A dense inner-product array: the machine that skips nothing."""

from dataclasses import dataclass
from typing import Any

from elision.accelerators.base import (
    Accelerator,
    Cost,
    check_integer,
    check_positive,
)
from elision.accelerators.energy import energy_table
from elision.accelerators.numbers import numbers_of
from elision.products import LayerProduct

__all__ = ["Dense"]


@dataclass(frozen=True, kw_only=True)
class Dense(Accelerator):
    """Ideal multiply-accumulate array: ``ceil(dense MACs / multipliers)`` cycles.

    Value-blind: zeros cost what other values cost. Both operands are read from the
    buffer once per ``reuse`` products and every output is written once.

    Attributes:
        multipliers: multiply-accumulate units (1,024: as many as SCNN has).
        buffer_kib: on-chip buffer that feeds the array (1 MB: SCNN's data capacity).
        reuse: products per operand word fetched (an own choice: a 32x32 broadcast array
            uses each fetched word 32 times).
        energy: name of an energy table, or path of a TOML file.

    Example:
        >>> from elision.products import MatmulGeometry, Product
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(16, 64, 32))
        >>> Dense(multipliers=1024).cost(product).cycles
        32
    """

    multipliers: int = 1024
    buffer_kib: float = 1024.0
    reuse: int = 32
    energy: str = "horowitz-45nm"
    value_blind = True
    not_swept = ("multipliers",)  # all of them, not the side of an element's array

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self, 1, "multipliers", "reuse")
        check_positive(self, "buffer_kib")

    @property
    def multiplier_count(self) -> int:
        """Multiply-accumulate units."""
        return self.multipliers

    @classmethod
    def sized(cls, multipliers: int, **given: Any) -> dict[str, Any]:
        """All multipliers are one array."""
        del given
        return {"multipliers": multipliers}

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product; see :meth:`Accelerator.run`."""
        macs = product.dense_macs
        cycles = -(-macs // self.multipliers)
        table = energy_table(self.energy)
        n = numbers_of(product.arithmetic)
        return Cost(
            cycles=cycles,
            multiplies=macs,
            valid_multiplies=macs,
            multiplier_slots=cycles * self.multipliers,
            operations={n.multiply: macs, n.add: macs},
            accesses={
                "buffer.read": n.words(2 * -(-macs // self.reuse), n.operands),
                "buffer.write": n.words(product.result_size, n.result),
            },
            prices_pj=table.prices(
                {n.multiply: n.multiply, n.add: n.add}, {"buffer": self.buffer_kib}
            ),
            area_mm2=table.area_mm2(
                {n.multiply: self.multipliers, n.add: self.multipliers}
            ),
        )
