"""Common ground of systolic arrays: rows, columns, buffers, and gating of zeros."""

from dataclasses import replace
from typing import Any, Self

from elision.accelerators.base import Accelerator, squarest_grid
from elision.accelerators.systolic.sram import Buffers

__all__ = ["SystolicArray"]


class SystolicArray(Accelerator):
    """An array of ``rows`` x ``columns`` PEs fed from buffers.

    Members are dataclasses with these fields; the array can be reshaped and its buffers
    sized (:mod:`elision.accelerators.design.sizing`).

    Attributes:
        rows: of PEs.
        columns: of PEs.
        zero_gating: PEs whose operand is zero do not switch.
        memory: the buffers in use.

    Example:
        >>> from elision.accelerators import Systolic
        >>> array = Systolic(32, 32).reshaped(16, 64)
        >>> isinstance(array, SystolicArray), array.rows
        (True, 16)
    """

    rows: int
    columns: int
    zero_gating: bool
    memory: Any  # Buffers; a property of the members

    reads_values = "zero gating"

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
