"""Maximum over windows."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from elision.export.operations.base import LOWEST, Operation

__all__ = ["MaxPool"]


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Operation):
    """Largest code of each channel in a window; the border holds the lowest code.

    Attributes:
        kernel, stride, dilation: vertical and horizontal.
        padding: top, left, bottom, right.

    Example:
        >>> import torch
        >>> pool = MaxPool(name="a", inputs=("x",), kernel=(1, 2), stride=(1, 2))
        >>> pool.run(torch.tensor([[[[1, 3, -5, -8]]]], dtype=torch.int8)).tolist()
        [[[[3, -5]]]]
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    kind: ClassVar[str] = "maximum"
    keeps_scale: ClassVar[bool] = True

    def run(self, *codes: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, P, Q)``."""
        (x,) = codes
        top, left, bottom, right = self.padding
        x = F.pad(x, (left, right, top, bottom), value=LOWEST)
        for axis, (size, step, apart) in enumerate(
            zip(self.kernel, self.stride, self.dilation, strict=True), 2
        ):
            x = x.unfold(axis, (size - 1) * apart + 1, step)[..., ::apart]
        return x.amax((-1, -2))
