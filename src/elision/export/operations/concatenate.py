"""Values side by side."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elision.export.operations.base import Operation

__all__ = ["Concatenate"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Concatenate(Operation):
    """Channels of several values one after the other; all have one scale.

    Attributes:
        axis: counted with the batch: 1 for channels.

    Example:
        >>> a, b = torch.tensor([[[1]], [[2]]], dtype=torch.int8)
        >>> Concatenate(name="a", inputs=("x", "y"), axis=1).run(a, b).tolist()
        [[1, 2]]
    """

    axis: int

    kind: ClassVar[str] = "concatenate"
    keeps_scale: ClassVar[bool] = True

    def run(self, *codes: Tensor) -> Tensor:
        """The codes of all, along the axis."""
        return torch.cat(codes, self.axis)
