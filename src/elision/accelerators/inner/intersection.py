"""Intersection: an inner-product machine that skips the zeros of both operands."""

from dataclasses import dataclass
from typing import Any

from elision.accelerators.base import Accelerator, Cost, ceil_div, check_integer
from elision.accelerators.energy import energy_table
from elision.accelerators.inner.work import (
    elements_of,
    multiplications_per_output,
    spread,
)
from elision.products import LayerProduct

__all__ = ["Intersection"]


@dataclass(frozen=True, kw_only=True)
class Intersection(Accelerator):
    """Inner join of two sparse operands, output by output (the class of SparTen).

    The operands of one output are bit masks with packed non-zeros. An element reads the
    masks in chunks, finds the places where both hold a value and multiplies ``lanes``
    of them per cycle::

        cycles of an output = ceil(matches / lanes) + join_cycles * chunks

    Nothing redundant is multiplied; the price is the join, which visits zeros as well.
    A model of this project: SparTen's own pipeline hides more of it.

    Attributes:
        elements: processing elements (1,024: as many multipliers as SCNN has).
        lanes: multipliers per element (1: one match per cycle, as in SparTen).
        chunk: mask bits joined at a time (128: SparTen).
        join_cycles: cycles per chunk that no multiplication hides (own choice; 0 is the
            ideal machine).
        buffer_kib: on-chip buffer of the operands (1 MB: SCNN's data capacity).
        reuse: products per operand word fetched, as in ``Dense``.
        energy: name of an energy table, or path of a TOML file.

    Example:
        >>> import numpy as np
        >>> from elision.products import MatmulGeometry, Product
        >>> x, w = np.ones((1, 4), np.float32), np.array([[1, 0, 0, 2]], np.float32)
        >>> product = LayerProduct(Product.FORWARD, MatmulGeometry(1, 4, 1), x, w)
        >>> Intersection(join_cycles=0).cost(product).multiplies
        2
    """

    elements: int = 1024
    lanes: int = 1
    chunk: int = 128
    join_cycles: int = 1
    buffer_kib: float = 1024.0
    reuse: int = 32
    energy: str = "horowitz-45nm"
    not_swept = ("elements",)  # their number follows from that of the multipliers

    def __post_init__(self) -> None:
        check_integer(self, 1, "elements", "lanes", "chunk", "reuse")
        check_integer(self, 0, "join_cycles")

    @property
    def multiplier_count(self) -> int:
        """Multipliers in all."""
        return self.elements * self.lanes

    @classmethod
    def sized(cls, multipliers: int, **given: Any) -> dict[str, Any]:
        """Elements of ``lanes`` multipliers each."""
        return {"elements": elements_of(multipliers, given.get("lanes", cls.lanes))}

    def cost(self, product: LayerProduct) -> Cost:
        """Cost of one product."""
        matches = multiplications_per_output(product, *product.masks)
        chunks = ceil_div(multiplications_per_output(product, None, None), self.chunk)
        per_output = ceil_div(matches, self.lanes) + self.join_cycles * chunks
        cycles = spread(per_output, self.elements)
        multiplies = int(matches.sum())
        joined = int(chunks.sum())
        table = energy_table(self.energy)
        multipliers = self.elements * self.lanes
        return Cost(
            cycles=cycles,
            multiplies=multiplies,
            valid_multiplies=multiplies,
            multiplier_slots=cycles * multipliers,
            operations={
                "multiply": multiplies,
                "add": multiplies,
                # Two masks of a chunk, compared 32 bits at a time.
                "compare": joined * ceil_div(self.chunk, 32),
            },
            accesses={
                "buffer.read": 2 * ceil_div(multiplies, self.reuse),
                "mask_buffer.read": ceil_div(
                    2 * joined * ceil_div(self.chunk, 32), self.reuse
                ),
                "buffer.write": product.result_size,
            },
            details={"chunks_joined": joined},
            prices_pj=table.prices(
                {"multiply": "multiply", "add": "add", "compare": "compare"},
                {"buffer": self.buffer_kib, "mask_buffer": self.buffer_kib},
            ),
            area_mm2=table.area_mm2({"multiply": multipliers, "add": multipliers}),
        )
