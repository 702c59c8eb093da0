"""Formats with shared scales: FP8, eight-bit integers, dynamic fixed point."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from elision.common.checks import integer, one_of
from elision.formats import (
    Floating,
    Grouping,
    Integer,
    Scaled,
    fast_round,
    format_named,
)
from elision.training.parallel.compressors.base import (
    Compressor,
    Guarantee,
    Message,
    State,
)

__all__ = ["DFP16", "FP8", "Int8"]

#: Dtypes of a scale's code on the wire, by its bits.
_CODES = {8: torch.uint8, 32: torch.int32}


@dataclass(frozen=True)
class _Shared(Compressor):
    """Codes of the elements and of the scales, gathered.

    Attributes:
        rounding: ``"stochastic"``, which is unbiased, or ``"nearest"``.
    """

    rounding: Literal["stochastic", "nearest"] = "stochastic"

    def __post_init__(self) -> None:
        owner = type(self).__name__
        one_of(owner, "rounding", self.rounding, ("stochastic", "nearest"))

    @property
    @abstractmethod
    def format(self) -> Scaled:
        """The format of :mod:`elision.formats`."""

    @property
    def guarantee(self) -> Guarantee:
        """Unbiased with stochastic rounding."""
        return "biased" if self.rounding == "nearest" else "unbiased"

    def compress(self, tensor: Tensor, state: State) -> Message:
        """Codes of the elements, then of the scales."""
        format, flat = self.format, tensor.detach().float().flatten()
        rounded = fast_round(format, flat, self.rounding, state.own_seed)
        codes = self._scale_codes(flat)
        elements = rounded / self._spread(codes, flat.numel())
        if isinstance(format.element, Integer):
            wire = torch.int8 if format.element.width == 8 else torch.int16
            elements = (elements * 2.0**format.element.point).round_()
        else:
            wire = self._element_dtype()
        state.step += 1
        return Message((elements.to(wire), codes), tensor.shape)

    def decompress(self, message: Message) -> Tensor:
        """Elements times their scales."""
        elements, codes = message.parts
        values = elements.float()
        if isinstance(self.format.element, Integer) and self.format.element.point:
            values *= 2.0**-self.format.element.point
        values *= self._spread(codes, values.numel())
        return values.view(message.shape)

    def bits(self, shape: Sequence[int], state: State | None = None) -> int:
        """Elements and scales: see :meth:`elision.formats.Scaled.storage`."""
        del state
        return self.format.storage((math.prod(shape),))

    def _element_dtype(self) -> torch.dtype:
        element = self.format.element
        assert isinstance(element, Floating)
        assert element.dtype is not None
        return element.dtype

    def _scale_codes(self, flat: Tensor) -> Tensor:
        """Codes of the scales, by the format's own rule, from the largest magnitudes.

        The rules in question read no more of a group than that.
        """
        format, block = self.format, self.format.grouping.block
        if block:
            whole = flat.numel() // block * block
            tops = flat[:whole].view(-1, block).abs().amax(1)
            if whole < flat.numel():
                tops = torch.cat((tops, flat[whole:].abs().amax()[None]))
        else:
            low, high = flat.aminmax()
            tops = torch.maximum(-low, high)[None]
        each = replace(format, grouping=Grouping("block", 1))
        return each.fit(tops)[0].to(_CODES[format.group_bits])

    def _spread(self, codes: Tensor, count: int) -> Tensor:
        """The scale of each value, or the one of all."""
        scales = self.format.rule.scale((codes.long(),)).float()
        block = self.format.grouping.block
        return scales.repeat_interleave(block)[:count] if block else scales


@dataclass(frozen=True)
class FP8(_Shared):
    """Eight-bit floating point with one float32 scale for the tensor.

    Attributes:
        rounding: ``"stochastic"``, which is unbiased, or ``"nearest"``.
        element: ``"e4m3"`` or ``"e5m2"``.

    Example:
        >>> sent = FP8("nearest").compress(torch.tensor([448.0, 17.0]), State())
        >>> FP8().decompress(sent).tolist(), sent.bits
        ([448.0, 16.0], 48)
    """

    element: Literal["e4m3", "e5m2"] = "e4m3"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("FP8", "element", self.element, ("e4m3", "e5m2"))

    @property
    def format(self) -> Scaled:
        """``scaled(fp8-e4m3)`` or ``scaled(fp8-e5m2)``."""
        return _scaled(f"scaled(fp8-{self.element})")


@dataclass(frozen=True)
class Int8(_Shared):
    """Eight-bit integers with a float32 scale for the tensor or for each block.

    Attributes:
        rounding: ``"stochastic"``, which is unbiased, or ``"nearest"``.
        block: values that share a scale; 0: the tensor's.

    Example:
        >>> sent = Int8("nearest").compress(torch.tensor([127.0, 2.4]), State())
        >>> Int8().decompress(sent).tolist(), sent.bits
        ([127.0, 2.0], 48)
    """

    block: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("Int8", "block", self.block, ">= 0")

    @property
    def format(self) -> Scaled:
        """``int8``, with blocks or without."""
        return _scaled(f"int8:block={self.block}" if self.block else "int8")


@dataclass(frozen=True)
class DFP16(_Shared):
    """Dynamic fixed point: 16-bit integers with the tensor's exponent.

    Attributes:
        rounding: ``"stochastic"``, which is unbiased, or ``"nearest"``.

    Source: Das et al., Mixed Precision Training of CNNs using Integer Operations, ICLR
    2018; see :data:`elision.formats.FORMATS`.

    Example:
        >>> sent = DFP16("nearest").compress(torch.tensor([1.0, -0.5]), State())
        >>> DFP16().decompress(sent).tolist(), sent.bits
        ([1.0, -0.5], 40)
    """

    @property
    def format(self) -> Scaled:
        """``dfp16``."""
        return _scaled("dfp16")


def _scaled(name: str) -> Scaled:
    found = format_named(name)
    assert isinstance(found, Scaled)
    return found
