"""A border of zeros."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from elision.export.operations.base import Operation

__all__ = ["Pad"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(Operation):
    """Value with zeros before and behind, whose code is the zero point.

    Attributes:
        before, behind: of every axis without the batch: channels, height, width.
        zero: zero point.

    Example:
        >>> import torch
        >>> pad = Pad(name="a", inputs=("x",), before=(1,), behind=(2,), zero=-7)
        >>> pad.run(torch.tensor([[5]], dtype=torch.int8)).tolist()
        [[-7, 5, -7, -7]]
    """

    before: tuple[int, ...]
    behind: tuple[int, ...]
    zero: int

    kind: ClassVar[str] = "pad"
    keeps_scale: ClassVar[bool] = True

    def run(self, *codes: Tensor) -> Tensor:
        """``(N, C, H, W)``, or ``(N, features)``, to a larger one."""
        (x,) = codes
        pairs = list(zip(self.before, self.behind, strict=True))
        return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=self.zero)
