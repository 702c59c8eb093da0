"""A tensor in a format with shared scales: the scales are bits as well."""

from dataclasses import dataclass

from torch import Tensor

from elision.faults.stored.base import Part, Stored
from elision.formats import Encoded, Scaled

__all__ = ["ScaledCodes"]


@dataclass(frozen=True)
class ScaledCodes(Stored):
    """Codes of the elements, and of the numbers that groups of them share.

    The parts ``scales.0``, ``scales.1``, ... are those of
    :attr:`elision.formats.Encoded.scales`: a scale of fp32, the shared exponent of a block
    or of dynamic fixed point, a zero point, the scale of the tensor.

    Attributes:
        format: of the codes.
        axis: along which blocks run.

    Example:
        >>> import torch
        >>> from elision.formats import FORMATS
        >>> held = ScaledCodes.of(torch.tensor([1.0, 0.5]), FORMATS["dfp16"])
        >>> held.changed("scales.0", [0], [0]).values()  # the exponent, 127 to 126
        tensor([0.5000, 0.2500])
    """

    format: Scaled
    axis: int = -1

    @staticmethod
    def of(x: Tensor, format: Scaled, axis: int = -1) -> "ScaledCodes":
        """The values of ``x``, rounded to the nearest of the format.

        Raises:
            ValueError: as :meth:`elision.formats.Scaled.encode`.
        """
        encoded = format.encode(x.detach(), axis=axis)
        parts = {"values": Part(encoded.codes, format.bits)}
        for k, codes in enumerate(encoded.scales):
            parts[f"scales.{k}"] = Part(codes, format.rule.formats[k].bits)
        return ScaledCodes(parts, x.dtype, format, axis)

    def values(self) -> Tensor:
        """See the base."""
        scales = tuple(
            part.words for name, part in self.parts.items() if name != "values"
        )
        encoded = Encoded(self.parts["values"].words, scales)
        return self.format.decode(encoded, self.axis).to(self.dtype)
