"""A number format that torch has."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elision.common.names import lookup
from elision.operands.base import State, Transform

__all__ = ["FORMATS", "Cast"]

#: Formats by the names used in recipes.
FORMATS = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8-e4m3": torch.float8_e4m3fn,
    "fp8-e5m2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class Cast(Transform):
    """Round every value to a narrower format; the product then reads these values.

    The rounding is exact (torch's own conversion); the multiplication runs in the
    layer's dtype, so this is an emulation of a narrow-operand, wide-accumulator
    product and makes nothing faster.

    Attributes:
        format: one of :data:`FORMATS`.
        scale: ``"tensor"`` divides by ``max|x| / format's maximum`` before rounding
            and multiplies after it; ``"none"`` rounds the values as they are, and
            clips those beyond the format's range to its largest value.
    """

    format: str
    scale: Literal["none", "tensor"] = "none"

    def check(self) -> None:
        lookup("number format", self.format, FORMATS)
        if self.scale not in ("none", "tensor"):
            raise ValueError(f"Cast(scale={self.scale!r}): must be 'none' or 'tensor'")

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        del state, training
        dtype = FORMATS[self.format]
        largest = torch.finfo(dtype).max
        if self.scale == "none" or not x.numel():
            # clamp keeps NaN a NaN, so a diverged run still shows.
            return x.clamp(-largest, largest).to(dtype).to(x.dtype)
        factor = x.abs().amax().float() / largest
        factor = torch.where(factor > 0, factor, 1.0)
        return ((x / factor).to(dtype).float() * factor).to(x.dtype)

    def __str__(self) -> str:
        return self.format if self.scale == "none" else f"{self.format} scaled"
