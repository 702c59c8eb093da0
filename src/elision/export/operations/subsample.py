"""Some indices of one axis."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from elision.export.operations.base import Operation

__all__ = ["Slice"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Operation):
    """Indices ``start, start + step, ...`` below ``stop`` of every axis.

    Attributes:
        start, stop, step: of every axis without the batch.

    Example:
        >>> import torch
        >>> even = Slice(name="a", inputs=("x",), start=(0,), stop=(5,), step=(2,))
        >>> even.run(torch.arange(5, dtype=torch.int8)[None]).tolist()
        [[0, 2, 4]]
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    kind: ClassVar[str] = "slice"
    keeps_scale: ClassVar[bool] = True

    def run(self, *codes: Tensor) -> Tensor:
        """``(N, C, H, W)``, or ``(N, features)``, to a smaller one."""
        (x,) = codes
        kept = [
            slice(*ends) for ends in zip(self.start, self.stop, self.step, strict=True)
        ]
        return x[(slice(None), *kept)].contiguous()
