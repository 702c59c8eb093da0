"""Formats whose values share scales: by the tensor, the channel or the block."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.formats.base import Coded, Format, Rounding, refuse_nan
from elision.formats.grouping import Grouping
from elision.formats.scales import FP32, Rule

__all__ = ["Encoded", "Scaled"]


@dataclass(frozen=True)
class Encoded:
    """The bits of a tensor in a format with shared scales.

    Attributes:
        codes: of the elements, int64, of the tensor's shape.
        scales: codes of the numbers that are stored beside them, int64: first of the
            groups, of the shape of :meth:`Grouping.shape`, then those of the tensor.

    Example:
        >>> from elision.formats import FORMATS
        >>> encoded = FORMATS["mxfp8"].encode(torch.ones(2, 64))
        >>> encoded.codes.shape, encoded.scales[0].shape
        (torch.Size([2, 64]), torch.Size([2, 2]))
    """

    codes: Tensor
    scales: tuple[Tensor, ...]


@dataclass(frozen=True)
class Scaled(Format):
    """Values ``scale · element``; the scale is shared by a group of neighbours.

    The quotient of a value and its scale is rounded to the element's format, and what
    lies beyond its range becomes its end. The quotient is a float32 number if the value
    has 32 bits or fewer, and what replaces the value is rounded once more, from the
    product to the dtype of ``x``. Zeros give zeros, whatever their scale.

    Attributes:
        element: format of a value over its scale.
        rule: of the scale.
        grouping: which values share one.

    Example:
        >>> from elision.formats import FORMATS
        >>> x = torch.tensor([1.0, 0.01, -0.3])
        >>> FORMATS["dfp8"].round(x).tolist()
        [1.0, 0.015625, -0.296875]
        >>> FORMATS["dfp8"].encode(x).codes.tolist()
        [64, 1, 237]
    """

    element: Coded
    rule: Rule
    grouping: Grouping

    @property
    def bits(self) -> int:
        """Width of an element's code."""
        return self.element.bits

    @property
    def largest(self) -> float:
        """The largest element."""
        return self.element.largest

    @property
    def group_bits(self) -> int:
        """Bits that are stored for each group: its scale, and what else it shares."""
        return sum(f.bits for f in self.rule.formats[: self.rule.of_group])

    def storage(self, shape: torch.Size | tuple[int, ...], axis: int = -1) -> int:
        """Bits of a tensor of this shape: its elements and its scales.

        Example:
            >>> from elision.formats import FORMATS
            >>> FORMATS["mxfp4"].storage((2, 64))
            544
        """
        of_tensor = sum(f.bits for f in self.rule.formats[self.rule.of_group :])
        groups = math.prod(self.grouping.shape(torch.Size(shape), axis))
        return math.prod(shape) * self.bits + groups * self.group_bits + of_tensor

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Encoded:
        """Codes of the elements and of the scales.

        Args and errors are those of :meth:`round`.

        Raises:
            ValueError: NaN where neither an element nor a scale has a code for it.
        """
        if not self.element.has_nan and not self.rule.spreads_nan:
            refuse_nan(self, x)
        stored = self.fit(x, axis)
        quotient = self._over(x, stored, rounding, axis)
        return Encoded(self.element.encode(quotient, rounding, seed), stored)

    def decode(self, encoded: Encoded, axis: int = -1) -> Tensor:
        """Values of the codes, float64; the axis is that of :meth:`encode`."""
        scale = self._scale(encoded.scales, encoded.codes.shape, axis)
        return self.element.decode(encoded.codes) * scale

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Tensor:
        """Values of the format in place of ``x``, in the dtype of ``x``.

        NaN stays NaN; where the rule says so, with all values of its group.

        Args are those of :meth:`Format.round`.

        Raises:
            ValueError: an unknown rounding, an axis that ``x`` has not, or a float64
                value whose scale would be beyond float32.
        """
        stored = self.fit(x, axis)
        quotient = self._over(x, stored, rounding, axis)
        element = self.element.round(quotient, rounding, seed)
        return (element * self._scale(stored, x.shape, axis)).to(x.dtype)

    def fit(self, x: Tensor, axis: int = -1) -> tuple[Tensor, ...]:
        """Codes of the scales alone, as :class:`Encoded` holds them.

        Raises:
            ValueError: as :meth:`round`.
        """
        if x.dtype == torch.float64:
            self._check_range(x)
        found = self.rule.fit(self.grouping.split(x, axis), self.element)
        shape = self.grouping.shape(x.shape, axis)
        own = self.rule.of_group
        return (*(c.reshape(shape) for c in found[:own]), *found[own:])

    def _over(
        self, x: Tensor, stored: tuple[Tensor, ...], rounding: Rounding, axis: int
    ) -> Tensor:
        """Quotients to be rounded, float64 that hold float32 numbers.

        0 where the scale is 0, or NaN for the whole group.
        """
        del rounding
        scale = self._scale(stored, x.shape, axis)
        quotient = x.double() / torch.where(scale > 0, scale, 1.0)
        quotient = torch.where((scale > 0) | (scale == 0) & x.isnan(), quotient, 0.0)
        return quotient if x.dtype == torch.float64 else quotient.float().double()

    def _scale(
        self, stored: tuple[Tensor, ...], shape: torch.Size, axis: int
    ) -> Tensor:
        """Scales that broadcast with a tensor of this shape, float64."""
        return self.grouping.spread(self.rule.scale(stored), shape, axis)

    def _check_range(self, x: Tensor) -> None:
        """The scale of float32 values is a float32 number; of float64, it may be none."""
        beyond = x[x.isfinite() & (x.abs() > FP32.largest)]
        if beyond.numel():
            raise ValueError(
                f"{self.name}: the scale of {beyond[0].item():g} overflows; magnitudes "
                f"must be at most {FP32.largest:g}"
            )
