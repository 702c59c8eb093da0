"""Rules of shared scales: from the values of a group to the number that they share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from elision.formats.base import Coded, power_of_two
from elision.formats.floating import Floating
from elision.formats.grouping import Groups

__all__ = ["FP32", "Largest", "Power", "Rule"]

FP32 = Floating("fp32", 8, 23, bias=127, dtype=torch.float32)


class Rule(ABC):
    """How a group's scale follows from its values.

    A value is near ``scale · element``; scales are float32 numbers.
    """

    @property
    @abstractmethod
    def formats(self) -> tuple[Coded, ...]:
        """Formats of the numbers that are stored for the groups."""

    @abstractmethod
    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """Codes of those numbers, int64, ``(G, 1)`` or, one per tensor, ``(1, 1)``."""

    @abstractmethod
    def scale(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The scales, float64 ``(G, 1)``; NaN makes the whole group NaN."""


@dataclass(frozen=True)
class Largest(Rule):
    """``s = max|x| / largest``: the largest finite magnitude takes the largest element.

    Kept in float32; a scale below ``2^−126``, as that of zeros, becomes ``2^−126``.
    """

    @property
    def formats(self) -> tuple[Coded, ...]:
        """One float32 number for each group."""
        return (FP32,)

    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """See the class."""
        scale = (magnitude(groups) / element.largest).float()
        return (FP32.encode(scale.clamp(min=FP32.smallest_normal)),)

    def scale(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The number itself."""
        return FP32.decode(codes[0])


@dataclass(frozen=True)
class Power(Rule):
    """``s = 2^(E − lead)``, ``E`` the exponent of the largest finite magnitude.

    Attributes:
        lead: exponent of the largest element's leading bit, to which ``E`` is brought.
    """

    lead: int

    @property
    def formats(self) -> tuple[Coded, ...]:
        """One exponent for each group."""
        return (FP32,)

    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """See the class."""
        del element
        exponent = torch.frexp(magnitude(groups)).exponent.long() - 1 - self.lead
        return (FP32.encode(power_of_two(exponent.clamp(-126, 127))),)

    def scale(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The power of two."""
        return FP32.decode(codes[0])


def magnitude(groups: Groups) -> Tensor:
    """The largest finite magnitude of each group, ``(G, 1)`` float64; of none, 0."""
    if not groups.values.shape[1]:
        return groups.values.new_zeros(len(groups.values), 1)
    finite = torch.where(groups.values.isfinite(), groups.values.abs(), 0.0)
    return finite.amax(1, keepdim=True)
