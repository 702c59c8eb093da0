"""Eight-bit floating point, scaled per tensor."""

from dataclasses import dataclass

import torch

from elision.memory.saved.codec import Codec, Guarantee, Packed, TracedCodec, floating
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["Float8", "scale_to_float8"]

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_SMALLEST = torch.finfo(torch.float8_e4m3fn).smallest_normal / 8


@dataclass(frozen=True)
class Float8(Codec):
    """``float8_e4m3fn`` of ``x·448/max|x|``: off by at most 1/16 of the value.

    Values below 2**-9 of the scaled range are subnormal or lost; a positive value is
    never restored as zero, so that masks survive.
    """

    name = "fp8"
    guarantee = Guarantee.BOUNDED
    roles = SMOOTH_ROLES

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Scale and cast; None if an element is not finite."""
        if not floating(tensor):
            return None
        values = flat(tensor).to(torch.float32)
        payload, factor = scale_to_float8(values, values.abs().max())
        return Packed((payload,), Layout.of(tensor), float(factor))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The scaled values."""
        values = packed.payload[0].to(torch.float32).mul_(packed.meta)
        return packed.layout.view(values)

    def keeps_sign(self, packed: Packed) -> bool:
        """Positive values stay positive, all others do not become so."""
        return True

    def bound(self, packed: Packed) -> float | None:
        """A sixteenth of the largest magnitude."""
        return packed.meta * _LARGEST / 16 * (1 + 1e-5)

    def traced(self, relu: bool) -> TracedCodec | None:
        """Eight bits with one factor."""
        del relu
        return _Traced()


def scale_to_float8(
    values: torch.Tensor, largest: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 values and their largest magnitude to codes and the factor they take."""
    factor = largest.clamp(min=1e-30) / _LARGEST
    scaled = (values / factor).clamp(-_LARGEST, _LARGEST)
    scaled = torch.where(values > 0, scaled.clamp(min=_SMALLEST), scaled)
    return scaled.to(torch.float8_e4m3fn), factor


class _Traced:
    """FP8 with one factor, as a graph traces it."""

    def pack(self, x: torch.Tensor) -> list[torch.Tensor]:
        values = x.to(torch.float32)
        return [*scale_to_float8(values, values.abs().amax())]

    def unpack(self, parts: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        return (parts[0].to(torch.float32) * parts[1]).to(like.dtype)
