"""Linear layer."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from elision.export.operations.weighted import Weighted

__all__ = ["Linear"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Weighted):
    """Product of int8 codes with int8 weights, summed in int32.

    ``y = clamp(z_y + M_k·(b_k + Σ w·(x − z_x)))``.

    Attributes:
        weight: int8, ``(columns, inner)``, symmetric, a scale for each column.
        weight_scale: float64, ``(columns,)``.
        bias: int32, ``(columns,)``, in units of ``s_x·s_w``.
        rescale: ``M_k = s_x·s_w/s_y``, one for each column.
        input_zero: zero point of the codes that are read.

    Example:
        >>> import torch
        >>> two = torch.full((1, 1), 2, dtype=torch.int8)
        >>> from elision.export.rescale import Rescale
        >>> double = Linear(
        ...     name="a", inputs=("x",), zero=0, weight=two, weight_scale=torch.ones(1),
        ...     bias=torch.ones(1).int(), rescale=Rescale.of(torch.ones(1)), input_zero=0)
        >>> double.run(two).item()
        5
    """

    kind: ClassVar[str] = "linear"

    def run(self, *codes: Tensor) -> Tensor:
        """``(N, inner)`` to ``(N, columns)``."""
        (x,) = codes
        sums = (x.int() - self.input_zero) @ self.weight.int().T + self.bias
        return self.clamped(self.rescale(sums))
