"""Eight-bit floating point, scaled per tensor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from elision.formats import FLOATS
from elision.memory.codecs.pieces import spans
from elision.memory.codecs.units import units_of
from elision.memory.saved.codec import Codec, Guarantee, Packed, TracedCodec, floating
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["Float8", "scale_to_float8"]

_FORMAT = FLOATS["fp8-e4m3"]
_LARGEST = _FORMAT.largest


@dataclass(frozen=True)
class Float8(Codec):
    """FP8 (E4M3) of ``x·448/max|x|``: off by at most 1/16 of the value.

    Scaled values below 2**-6 are subnormal, with a larger relative error; a positive
    value is never restored as zero, so that masks survive. A norm takes the mean off,
    which may be many deviations, so its input is packed without (see
    :mod:`elision.memory.codecs.units`).

    Example:
        >>> scale_to_float8(torch.tensor([1.0, 0.1]), torch.tensor(1.0))[0].float()
        tensor([448.,  44.])
    """

    name = "fp8"
    guarantee = Guarantee.BOUNDED
    roles = SMOOTH_ROLES

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Scale and cast; None if an element is not finite."""
        if not floating(tensor):
            return None
        # No group, as it were, lies within one statistic.
        units = units_of(slot, tensor, tensor.numel() + 1)
        values = flat(tensor if units is None else units.measure(tensor))
        low, high = torch.aminmax(values)
        largest = torch.maximum(high, -low).to(torch.float32)
        payload = values.new_empty(values.shape, dtype=_FORMAT.dtype)
        factor = largest
        for span in spans(values.numel()):
            piece = values[span].to(torch.float32)
            payload[span], factor = scale_to_float8(piece, largest)
        if not math.isfinite(factor):  # the deviations are wider than the type
            return None
        return Packed((payload,), Layout.of(tensor), (float(factor), units))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The scaled values."""
        codes, (factor, units) = packed.payload[0], packed.meta
        values = codes.new_empty(codes.shape, dtype=packed.layout.dtype)
        for span in spans(codes.numel()):
            values[span] = codes[span].to(torch.float32).mul_(factor)
        values = packed.layout.view(values)
        return values if units is None else units.restore_(values)

    def keeps_sign(self, packed: Packed) -> bool:
        """Positive values stay positive, all others do not become so."""
        return packed.meta[1] is None

    def bound(self, packed: Packed) -> float | None:
        """A sixteenth of the largest magnitude."""
        factor, units = packed.meta
        bound = factor * _LARGEST / 16 * (1 + 1e-5)
        if units is None:
            return bound
        bound = units.error(bound)
        # What the type of the tensor itself loses.
        eps = torch.finfo(packed.layout.dtype).eps
        return bound + 2 * eps * (bound + units.largest(factor * _LARGEST))

    def traced(self, relu: bool) -> TracedCodec | None:
        """Eight bits with one factor."""
        del relu
        return _Traced()


def scale_to_float8(
    values: torch.Tensor, largest: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of float32 values, and the factor that scales them back.

    Args:
        values: float32, any shape.
        largest: scalar, the largest magnitude of ``values``.
    """
    factor = largest.clamp(min=1e-30) / _LARGEST
    scaled = (values / factor).clamp(-_LARGEST, _LARGEST)
    scaled = torch.where(values > 0, scaled.clamp(min=_FORMAT.smallest), scaled)
    return scaled.to(_FORMAT.dtype), factor


class _Traced:
    """FP8 with one factor, as a graph traces it."""

    def pack(self, x: torch.Tensor) -> list[torch.Tensor]:
        values = x.to(torch.float32)
        return [*scale_to_float8(values, values.abs().amax())]

    def unpack(
        self, parts: list[torch.Tensor], like: torch.Tensor, sizes: Sequence[int]
    ) -> torch.Tensor:
        del sizes  # those of the codes
        return (parts[0].to(torch.float32) * parts[1]).to(like.dtype)
