"""Average over windows, or over the whole image."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from elision.export.operations.base import Clamped
from elision.export.rescale import Rescale

__all__ = ["Average"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Average(Clamped):
    """Mean of each channel over windows, without padding.

    ``y = clamp(z_y + M·Σ(x − z_x))``, ``M = s_x/(n·s_y)`` with the n pixels of a window.

    Attributes:
        rescale: ``M``, one number.
        input_zero: zero point of the codes that are read.
        kernel: height and width of a window; of the image for a global average.
        stride: vertical and horizontal.
        keeps_pixels: False for an average over the whole image that writes ``(N, C)``.

    Example:
        >>> import torch
        >>> mean = Average(name="a", inputs=("x",), zero=0, input_zero=0, kernel=(1, 2),
        ...     stride=(1, 2), rescale=Rescale.of(torch.tensor([0.5])))
        >>> mean.run(torch.tensor([[[[1, 3, 5, 8]]]], dtype=torch.int8)).tolist()
        [[[[2, 7]]]]
    """

    rescale: Rescale
    input_zero: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    keeps_pixels: bool = True

    kind: ClassVar[str] = "average"

    def run(self, *codes: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, P, Q)``, or to ``(N, C)``."""
        (x,) = codes
        windows = x.long() - self.input_zero
        for axis, (size, step) in enumerate(
            zip(self.kernel, self.stride, strict=True), 2
        ):
            windows = windows.unfold(axis, size, step)
        found = self.clamped(self.rescale(windows.sum((-1, -2))))
        return found if self.keeps_pixels else found.flatten(1)

    def constants(self) -> dict[str, Tensor]:
        """Mantissa and shift."""
        return {"mantissa": self.rescale.mantissa, "shift": self.rescale.shift}
