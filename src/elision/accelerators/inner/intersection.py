"""Intersection: an inner-product machine that skips the zeros of both operands."""

from dataclasses import dataclass

import numpy as np

from elision.accelerators.base import (
    Cost,
    ceil_div,
    check_integer,
    check_positive,
)
from elision.accelerators.energy import energy_table
from elision.accelerators.inner.elements import ElementMachine
from elision.accelerators.inner.matching import matches
from elision.accelerators.inner.work import places, spread
from elision.accelerators.numbers import numbers_of
from elision.products import LayerProduct

__all__ = ["Intersection"]


@dataclass(frozen=True, kw_only=True)
class Intersection(ElementMachine):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self, 1, "elements", "lanes", "chunk", "reuse")
        check_integer(self, 0, "join_cycles")
        check_positive(self, "buffer_kib")

    def run(self, product: LayerProduct) -> Cost:
        """Cost of one product; see :meth:`Accelerator.run`."""
        total = longest = multiplies = 0
        for found, inside in matches(product):
            steps = ceil_div(found, self.lanes) if self.lanes > 1 else found
            cycles = steps + self.join_cycles * ceil_div(inside, self.chunk)
            multiplies += int(found.sum(dtype=np.int64))
            total += int(cycles.sum(dtype=np.int64))
            longest = max(longest, int(cycles.max()))
        if multiplies != product.counts.valid:
            raise RuntimeError(
                f"{product!r}: matrix products of masks found {multiplies} "
                f"matches where there are {product.counts.valid}"
            )
        cycles = spread(total, longest, self.elements)
        chunks = places(product)
        joined = chunks._replace(work=ceil_div(chunks.work, self.chunk)).total
        table = energy_table(self.energy)
        n = numbers_of(product.arithmetic)
        multipliers = self.multiplier_count
        return Cost(
            cycles=cycles,
            multiplies=multiplies,
            valid_multiplies=multiplies,
            multiplier_slots=cycles * multipliers,
            operations={
                n.multiply: multiplies,
                n.add: multiplies,
                # Two masks of a chunk, compared 32 bits at a time.
                "compare": joined * ceil_div(self.chunk, 32),
            },
            accesses={
                "buffer.read": n.words(
                    2 * ceil_div(multiplies, self.reuse), n.operands
                ),
                "mask_buffer.read": ceil_div(
                    2 * joined * ceil_div(self.chunk, 32), self.reuse
                ),
                "buffer.write": n.words(product.result_size, n.result),
            },
            details={"chunks_joined": joined},
            prices_pj=table.prices(
                {n.multiply: n.multiply, n.add: n.add, "compare": "compare"},
                {"buffer": self.buffer_kib, "mask_buffer": self.buffer_kib},
            ),
            area_mm2=table.area_mm2({n.multiply: multipliers, n.add: multipliers}),
        )
