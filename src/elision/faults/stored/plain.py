"""A tensor in its own dtype, or in a format whose codes stand alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.faults.stored.base import Part, Stored
from elision.formats import Coded

__all__ = ["Codes", "Native"]

#: The integer dtype that has the bits of a dtype of so many bytes.
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Native(Stored):
    """The bits of the dtype itself; a boolean has one, in a byte.

    Example:
        >>> one = Native.of(torch.tensor([1.0]))
        >>> one.changed("values", [0], [31]).values()
        tensor([-1.])
    """

    @staticmethod
    def of(x: Tensor) -> "Native":
        """The bits of ``x``, a dense real tensor.

        Raises:
            TypeError: a complex, sparse or quantised tensor.
        """
        if x.layout != torch.strided or x.is_complex() or x.is_quantized:
            raise TypeError(
                "fault: the tensor must be dense and real, got "
                f"{str(x.dtype).removeprefix('torch.')} in layout {x.layout}"
            )
        x = x.detach().clone(memory_format=torch.contiguous_format)
        if x.dtype == torch.bool:
            return Native({"values": Part(x.to(torch.uint8), 1)}, x.dtype)
        size = x.element_size()
        words = x.view(-1).view(_WORDS[size]).view(x.shape)
        return Native({"values": Part(words, 8 * size)}, x.dtype)

    def values(self) -> Tensor:
        """See the base."""
        words = self.parts["values"].words
        if self.dtype == torch.bool:
            return words.to(torch.bool)
        return words.view(-1).view(self.dtype).view(words.shape).clone()


@dataclass(frozen=True)
class Codes(Stored):
    """Codes of a format without shared scales.

    Attributes:
        format: of the codes.

    Example:
        >>> from elision.formats import FORMATS
        >>> held = Codes.of(torch.tensor([1.0]), FORMATS["fp8-e4m3"])
        >>> held.changed("values", [0], [3]).values()
        tensor([0.5000])
    """

    format: Coded

    @staticmethod
    def of(x: Tensor, format: Coded) -> "Codes":
        """The values of ``x``, rounded to the nearest of the format.

        Raises:
            ValueError: NaN where no code stands for it.
        """
        codes = format.encode(x.detach())
        return Codes({"values": Part(codes, format.bits)}, x.dtype, format)

    def values(self) -> Tensor:
        """See the base."""
        return self.format.decode(self.parts["values"].words).to(self.dtype)
