"""Codes under another shape."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from elision.export.operations.base import Operation

__all__ = ["Reshape"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Operation):
    """The same codes under another shape, in torch's order: the last axis runs fastest.

    Attributes:
        shape: of one example.

    Example:
        >>> import torch
        >>> reshape = Reshape(name="a", inputs=("x",), shape=(4,))
        >>> reshape.run(torch.zeros(3, 1, 2, 2, dtype=torch.int8)).shape
        torch.Size([3, 4])
    """

    shape: tuple[int, ...]

    kind: ClassVar[str] = "reshape"
    keeps_scale: ClassVar[bool] = True

    def run(self, *codes: Tensor) -> Tensor:
        """``(N, ...)`` to ``(N, *shape)``."""
        (x,) = codes
        return x.reshape(len(x), *self.shape)
