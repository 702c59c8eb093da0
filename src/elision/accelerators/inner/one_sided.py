"""One-sided sparsity: an inner-product machine that skips the zeros of one operand."""

from collections.abc import Mapping
from dataclasses import dataclass

from elision.accelerators.base import (
    Cost,
    ceil_div,
    check_integer,
    check_positive,
)
from elision.accelerators.energy import energy_table
from elision.accelerators.inner.elements import ElementMachine
from elision.accelerators.inner.work import one_sided, places, spread
from elision.accelerators.numbers import numbers_of
from elision.common.names import lookup
from elision.products import OPERANDS, LayerProduct, Product

__all__ = ["OneSided"]

_SIDES = ("sparser", "first", "second", *OPERANDS)


@dataclass(frozen=True, kw_only=True)
class OneSided(ElementMachine):
    """Inner product over the non-zeros of one operand and all values of the other.

    An element works on one output at a time and multiplies ``lanes`` of the chosen
    operand's non-zeros per cycle: ``ceil(non-zeros of the output / lanes)`` cycles. The
    class of Cambricon-X and Cnvlutin (inference) and of TensorDash (training), which
    picks the side for each product; a model of this project, not of one of them.

    Attributes:
        side: operand whose zeros are skipped: ``"sparser"`` (of each product), ``"first"`` or
            ``"second"`` operand, or ``"input"``, ``"weight"``, ``"grad_output"``. A
            product that does not read the named operand skips nothing.
        elements: processing elements (64: as many as SCNN has).
        lanes: multipliers per element (16: as many as SCNN has).
        buffer_kib: on-chip buffer of the operands (1 MB: SCNN's data capacity).
        reuse: products per operand word fetched, as in ``Dense``.
        energy: name of an energy table, or path of a TOML file.

    Example:
        >>> import numpy as np
        >>> from elision.products import MatmulGeometry, Product
        >>> x, w = np.ones((1, 4), np.float32), np.array([[1, 0, 0, 2]], np.float32)
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 4, 1), x, w)
        >>> OneSided(side="weight").cost(product).multiplies
        2
    """

    side: str = "sparser"
    elements: int = 64
    lanes: int = 16
    buffer_kib: float = 1024.0
    reuse: int = 32
    energy: str = "horowitz-45nm"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self, 1, "elements", "lanes", "reuse")
        check_positive(self, "buffer_kib")
        lookup("side of OneSided", self.side, dict.fromkeys(_SIDES))

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product; see :meth:`Accelerator.run`."""
        side = self.side_of(product.kind, product.densities)
        outputs = places(product) if side is None else one_sided(product, side)
        steps = outputs._replace(work=ceil_div(outputs.work, self.lanes))
        cycles = spread(steps.total, int(steps.work.max()), self.elements)
        multiplies = outputs.total
        table = energy_table(self.energy)
        multipliers = self.multiplier_count
        fetched = ceil_div(multiplies, self.reuse)
        n = numbers_of(product.arithmetic)
        return Cost(
            cycles=cycles,
            multiplies=multiplies,
            valid_multiplies=multiplies,
            multiplier_slots=cycles * multipliers,
            operations={n.multiply: multiplies, n.add: multiplies},
            accesses={
                "buffer.read": n.words(2 * fetched, n.operands),
                # A 16-bit index with every value of the sparse side.
                "index_buffer.read": ceil_div(fetched, 2),
                "buffer.write": n.words(product.result_size, n.result),
            },
            details={"zero_products": multiplies - product.counts.valid},
            prices_pj=table.prices(
                {n.multiply: n.multiply, n.add: n.add},
                {"buffer": self.buffer_kib, "index_buffer": self.buffer_kib},
            ),
            area_mm2=table.area_mm2({n.multiply: multipliers, n.add: multipliers}),
        )

    def side_of(self, kind: Product, densities: Mapping[str, float]) -> int | None:
        """Place of the operand whose zeros are skipped; None if the product has not it.

        Args:
            kind: the product.
            densities: of its operands, by name.
        """
        if self.side in ("first", "second"):
            return ("first", "second").index(self.side)
        names = kind.operands
        if self.side == "sparser":
            return int(densities[names[1]] < densities[names[0]])
        return names.index(self.side) if self.side in names else None
