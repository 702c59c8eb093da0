"""Integers with a step and a zero point."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elision.formats.base import Coded, Rounding, refuse_nan
from elision.formats.grouping import Groups
from elision.formats.integer import Integer, nearby_integer
from elision.formats.scaled import Encoded, Scaled
from elision.formats.scales import FP32, Rule

__all__ = ["Affine", "Range"]


@dataclass(frozen=True)
class Range(Rule):
    """Step ``s = (max − min)/(2^b − 1)`` and zero point ``z = round(−min/s)``.

    Minimum and maximum are those of the finite values and of zero, so that zero is
    exact. A step below ``2^−126``, that of zeros among them, becomes ``2^−126``.

    Attributes:
        zero: format of a zero point: that of the codes.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, CVPR 2018, equation 1 and section 3.

    Example:
        >>> from elision.formats import FORMATS
        >>> [number.name for number in FORMATS["uint8"].rule.formats]
        ['fp32', 'uint8']
    """

    zero: Integer
    of_group: ClassVar[int] = 2

    @property
    def formats(self) -> tuple[Coded, ...]:
        """Step and zero point."""
        return (FP32, self.zero)

    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """See the class."""
        values = torch.where(groups.values.isfinite(), groups.values, 0.0)
        if not values.shape[1]:
            values = values.new_zeros(len(values), 1)
        low = values.amin(1, keepdim=True).clamp(max=0)
        high = values.amax(1, keepdim=True).clamp(min=0)
        step = ((high - low) / element.largest).float().clamp(min=FP32.smallest_normal)
        return FP32.encode(step), self.zero.encode((-low / step.double()).float())


@dataclass(frozen=True)
class Affine(Scaled):
    """Values ``s·(q − z)``: codes ``q`` from 0 up, a step ``s`` and a zero point ``z``.

    ``q = round(x/s) + z``, clamped: the rounding is that of the quotient, before the zero
    point is added.

    Example:
        >>> from elision.formats import FORMATS
        >>> x = torch.tensor([0.0, 1.0, 2.54])
        >>> FORMATS["uint8"].encode(x).codes.tolist()
        [0, 100, 255]
    """

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Encoded:
        """Codes of the elements, of the steps and of the zero points."""
        refuse_nan(self, x)
        stored = self.fit(x, axis)
        return Encoded(self._codes(x, stored, rounding, seed, axis).long(), stored)

    def decode(self, encoded: Encoded, axis: int = -1) -> Tensor:
        """Values of the codes, float64."""
        return self._values(encoded.codes.double(), encoded.scales, axis)

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Tensor:
        """Values of the format in place of ``x``; NaN stays NaN."""
        stored = self.fit(x, axis)
        codes = self._codes(x, stored, rounding, seed, axis)
        return self._values(codes, stored, axis).to(x.dtype)

    def _codes(
        self,
        x: Tensor,
        stored: tuple[Tensor, ...],
        rounding: Rounding,
        seed: int,
        axis: int,
    ) -> Tensor:
        """Codes as float64; NaN where ``x`` is."""
        quotient = self._over(x, stored, rounding, axis)
        zero = self.grouping.spread(stored[1], x.shape, axis)
        whole = nearby_integer(quotient, rounding, seed) + zero
        return whole.clamp(0, self.element.largest)

    def _values(self, codes: Tensor, stored: tuple[Tensor, ...], axis: int) -> Tensor:
        zero = self.grouping.spread(stored[1], codes.shape, axis)
        return (codes - zero) * self._scale(stored, codes.shape, axis)
