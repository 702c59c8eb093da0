"""A function of one activation, as a table."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from elision.export.operations.base import LOWEST, Operation

__all__ = ["Lookup"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Lookup(Operation):
    """Function between the layers, such as h-swish, as the code for each of 256 codes.

    ``table[q + 128]`` is the code of ``f(s_x·(q − z_x))``: exact to its rounding.

    Attributes:
        table: int8, ``(256,)``.
        function: name of ``f``, as torch has it.

    Example:
        >>> import torch
        >>> flip = Lookup(name="a", inputs=("x",), function="neg",
        ...     table=torch.arange(127, -129, -1).to(torch.int8))
        >>> flip.run(torch.tensor([-128, 0], dtype=torch.int8)).tolist()
        [127, -1]
    """

    table: Tensor
    function: str

    kind: ClassVar[str] = "lookup"

    def run(self, *codes: Tensor) -> Tensor:
        """The entry of every code."""
        (x,) = codes
        return self.table[x.long() - LOWEST]

    def constants(self) -> dict[str, Tensor]:
        """The table."""
        return {"table": self.table}
