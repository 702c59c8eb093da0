"""Rounding to a number format."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elision.common.checks import one_of
from elision.common.names import lookup
from elision.formats import FORMATS, fast_round
from elision.operands.base import State, Transform

__all__ = ["Cast"]

_SATURATING = {name: known.saturating for name, known in FORMATS.items()}


@dataclass(frozen=True)
class Cast(Transform):
    """Round every value to a narrower format; the product then reads these values.

    The values are exactly the format's (to nearest, ties to even); the multiplication
    runs in the layer's dtype, so this is an emulation of a narrow-operand,
    wide-accumulator product and makes nothing faster.

    Attributes:
        format: one of :data:`elision.formats.FORMATS`.
        scale: ``"tensor"`` divides by ``max|x| / format's maximum`` before rounding
            and multiplies after it, the maximum being that of the finite values;
            ``"none"`` rounds the values as they are. Values beyond the range, infinities
            included, become the largest value; NaN stays.

    Example:
        >>> Cast("fp8-e4m3")(torch.tensor([0.3, 1000.0]), [], True).tolist()
        [0.3125, 448.0]
    """

    format: str
    scale: Literal["none", "tensor"] = "none"

    def check(self) -> None:
        lookup("number format", self.format, FORMATS)
        one_of("Cast", "scale", self.scale, ("none", "tensor"))

    @property
    def number_format(self) -> str:
        """The format itself."""
        return self.format

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        format = _SATURATING[self.format]
        if self.scale == "none" or not x.numel():
            return fast_round(format, x)
        magnitudes = torch.where(torch.isfinite(x), x.abs(), 0)
        factor = magnitudes.amax().float() / format.largest
        factor = torch.where(factor > 0, factor, 1.0)
        return (fast_round(format, (x / factor).float()) * factor).to(x.dtype)

    def __str__(self) -> str:
        return self.format if self.scale == "none" else f"{self.format} scaled"
