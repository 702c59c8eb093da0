"""Common ground of systolic arrays: rows, columns, buffers, prices, gating of zeros."""

import math
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

from elision.accelerators.base import Accelerator, squarest_grid
from elision.accelerators.energy import REGISTER, energy_table
from elision.accelerators.numbers import FLOAT32, Numbers
from elision.accelerators.systolic.sram import Buffers

__all__ = ["SystolicArray", "pe_area_um2"]


class SystolicArray(Accelerator):
    """An array of ``rows`` x ``columns`` PEs fed from buffers.

    Members are dataclasses with these fields; the array can be reshaped and its buffers
    sized (:mod:`elision.accelerators.design.sizing`).

    Attributes:
        rows: of PEs.
        columns: of PEs.
        zero_gating: PEs whose operand is zero do not switch.
        buffers: SRAM sizes and DRAM bandwidth, as the member was given them.
        energy: name of an energy table, or path of a TOML file.

    Example:
        >>> from elision.accelerators import Systolic
        >>> array = Systolic(32, 32).reshaped(16, 64)
        >>> isinstance(array, SystolicArray), array.rows
        (True, 16)
    """

    rows: int
    columns: int
    zero_gating: bool
    buffers: Buffers | str | float | None
    energy: str

    reads_values = "zero gating"

    @cached_property
    def memory(self) -> Buffers:
        """The buffers in use."""
        return Buffers.given(self.buffers, self.rows, self.columns)

    @cached_property
    def area_mm2(self) -> float | None:
        """Area of the PEs for float32; None if the energy table has no areas."""
        return self.area_for(FLOAT32)

    def prices_for(self, n: Numbers) -> dict[str, float]:
        """Energy of one of each operation and access, in some formats."""
        memories = {**self.memory.memories, "register": REGISTER}
        actions = {n.multiply: n.multiply, n.add: n.add}
        return energy_table(self.energy).prices(actions, memories)

    def area_for(self, n: Numbers) -> float | None:
        """Area of the PEs for some formats; None if the energy table has no areas."""
        area = pe_area_um2(self.energy, n=n)
        return None if area is None else self.rows * self.columns * area / 1e6

    @property
    def multiplier_count(self) -> int:
        """PEs, of one multiplier each."""
        return self.rows * self.columns

    @property
    def value_blind(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True unless zeros are gated: operands may be None."""
        return not self.zero_gating

    @classmethod
    def sized(cls, multipliers: int, **given: Any) -> dict[str, Any]:
        """A PE for each multiplier, as nearly square as can be."""
        if given.keys() & {"rows", "columns"}:
            return {}
        rows, columns = squarest_grid(multipliers)
        return {"rows": rows, "columns": columns}

    def reshaped(self, rows: int, columns: int) -> Self:
        """The array with other sides and the same buffers."""
        return replace(self, rows=rows, columns=columns)  # pyright: ignore[reportArgumentType]

    def with_buffers(self, buffers: Buffers) -> Self:
        """The array with other buffers."""
        return replace(self, buffers=buffers)  # pyright: ignore[reportArgumentType]


def pe_area_um2(
    energy: str, accumulators: int = 1, n: Numbers = FLOAT32
) -> float | None:
    """Area of a PE: multiplier, adder and registers.

    Two registers hold what passes through or stays (row operand and column operand);
    ``accumulators`` more hold sums. None if the table has no areas.

    Raises:
        ValueError: the table has areas, but not of all of these units (named).
    """
    table = energy_table(energy)
    registers = math.ceil(n.first + n.second + accumulators * n.sums)
    units = {n.multiply: 1, n.add: 1, "register_bit": registers}
    area = table.area_mm2(units)
    return None if area is None else 1e6 * area
