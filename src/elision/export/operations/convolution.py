"""Two-dimensional convolution."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.export.operations.weighted import Weighted

__all__ = ["Convolution"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(Weighted):
    """Convolution of int8 codes with int8 weights, summed in int32.

    ``y = clamp(z_y + M_k·(b_k + Σ w·(x − z_x)))``; at the border ``x = z_x``. A depthwise
    convolution has as many groups as channels.

    Attributes:
        weight: int8, ``(K, C/groups, R, S)``, symmetric, a scale for each of K channels.
        weight_scale: float64, ``(K,)``.
        bias: int32, ``(K,)``, in units of ``s_x·s_w``.
        rescale: ``M_k = s_x·s_w/s_y``, one for each of K channels.
        input_zero: zero point of the codes that are read.
        stride, dilation: vertical and horizontal.
        padding: top, left, bottom, right.
        groups: of channels.

    Example:
        >>> one = torch.ones(1, 1, 1, 1, dtype=torch.int8)
        >>> from elision.export.rescale import Rescale
        >>> double = Convolution(
        ...     name="a", inputs=("x",), zero=0, weight=2 * one, weight_scale=torch.ones(1),
        ...     bias=torch.ones(1).int(), rescale=Rescale.of(torch.ones(1)), input_zero=0)
        >>> double.run(3 * one).item()
        7
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    kind: ClassVar[str] = "convolution"

    @property
    def depthwise(self) -> bool:
        """Whether each channel is filtered by itself, into one channel."""
        return self.weight.shape[1] == 1 and self.groups == len(self.weight)

    def run(self, *codes: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, K, P, Q)``, by products of int32 matrices."""
        (x,) = codes
        top, left, bottom, right = self.padding
        x = F.pad(x.int() - self.input_zero, (left, right, top, bottom))
        for axis, (size, step, apart) in enumerate(
            zip(self.weight.shape[2:], self.stride, self.dilation, strict=True), 2
        ):
            x = x.unfold(axis, (size - 1) * apart + 1, step)
            x = x[..., ::apart]
        images, channels, height, width = x.shape[:4]
        # Patches as rows, for each group: (groups, N·P·Q, C/groups·R·S).
        x = x.unflatten(1, (self.groups, channels // self.groups))
        rows = x.permute(1, 0, 3, 4, 2, 5, 6).reshape(
            self.groups, images * height * width, -1
        )
        columns = self.weight.int().reshape(self.groups, -1, rows.shape[-1])
        if self.depthwise:
            sums = (rows * columns).sum(2, dtype=torch.int32)[..., None]
        else:
            sums = rows @ columns.transpose(1, 2)
        sums = sums.permute(1, 0, 2).reshape(images, height, width, -1) + self.bias
        return self.clamped(self.rescale(sums)).permute(0, 3, 1, 2).contiguous()
