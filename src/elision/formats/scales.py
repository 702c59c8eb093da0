"""Rules of shared scales: from the values of a group to the number that they share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from elision.common.checks import number, one_of
from elision.formats.base import Coded
from elision.formats.exponent import E8M0
from elision.formats.floating import Floating
from elision.formats.grouping import Groups

__all__ = [
    "FP32",
    "Largest",
    "Mean",
    "NextPower",
    "Power",
    "Rule",
    "TwoLevel",
    "largest_magnitude",
]

FP32 = Floating("fp32", 8, 23, bias=127, dtype=torch.float32)

#: Share of the mean magnitude below which TWN sets a weight to zero (Li, Zhang and Liu,
#: Ternary Weight Networks, 2016, equation 6).
TWN = 0.7


class Rule(ABC):
    """How a group's scale follows from its values.

    A value is near ``scale · element``, and a scale is a float32 number. Infinity has no
    part in it, and becomes the element's largest value.
    """

    #: Whether a NaN whose element has no code for it makes the scale NaN, and with it
    #: all values of the group. Without, it stays NaN alone, and has no code.
    spreads_nan: bool = False

    #: How many of the stored numbers a group has of its own.
    of_group: ClassVar[int] = 1

    @property
    def formats(self) -> tuple[Coded, ...]:
        """Formats of the numbers that are stored: of a group, then of the tensor."""
        return (FP32,)

    @abstractmethod
    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """Codes of those numbers, int64: of a group ``(G, 1)``, of the tensor ``()``.

        Args:
            groups: the values that share scales, in rows.
            element: format of a value over its scale.
        """

    def scale(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The scales, float64, of the shape of the groups' codes."""
        return self.formats[0].decode(codes[0])


@dataclass(frozen=True)
class Largest(Rule):
    """``s = max|x| / largest``: the largest magnitude becomes the largest element.

    Scales below ``2^−126``, that of a group of zeros among them, become ``2^−126``.

    Example:
        >>> from elision.formats import FORMATS
        >>> FORMATS["int8"].rule
        Largest()
    """

    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """See the class."""
        return (_float32(largest_magnitude(groups) / element.largest),)


@dataclass(frozen=True)
class Power(Rule):
    """``s = 2^(⌊log2(growth · max|x|)⌋ − lead)``, an exponent of 8 bits.

    The scale of a group of zeros is ``2^−127``, the smallest.

    Attributes:
        lead: exponent of the element that the largest magnitude is brought to.
        growth: of the largest magnitude, before its exponent is taken.
        spreads_nan: see :class:`Rule`.

    Source: OCP Microscaling Formats (MX) Specification v1.0, 2023, section 6.3: the
    largest power of two up to ``max|x|``, over the largest one of the element's format.

    Example:
        >>> from elision.formats import FORMATS
        >>> FORMATS["mxfp4"].rule.lead
        2
    """

    lead: int = 0
    growth: float = 1.0
    spreads_nan: bool = False

    def __post_init__(self) -> None:
        number("Power", "growth", self.growth, "[1, 2)")

    @property
    def formats(self) -> tuple[Coded, ...]:
        """One exponent."""
        return (E8M0,)

    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """See the class."""
        top = largest_magnitude(groups) * self.growth
        exponent = torch.frexp(top).exponent.long() - 1 - self.lead
        code = torch.where(top > 0, exponent + E8M0.bias, 0).clamp(0, 2 * E8M0.bias)
        if self.spreads_nan and not element.has_nan:
            nan = groups.values.isnan().any(1, keepdim=True)
            code = torch.where(nan, 2**E8M0.bits - 1, code)
        return (code,)


@dataclass(frozen=True)
class NextPower(Rule):
    """The smallest power of two at which no finite value lies beyond the largest element.

    Source: the ``power_2_scale`` of NVIDIA's Transformer Engine; an exponent of 8 bits
    as in MX.
    """

    @property
    def formats(self) -> tuple[Coded, ...]:
        """One exponent."""
        return (E8M0,)

    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """See the class."""
        part, exponent = torch.frexp(largest_magnitude(groups) / element.largest)
        code = exponent.long() - (part == 0.5).long() + E8M0.bias
        return (torch.where(part > 0, code, 0).clamp(0, 2 * E8M0.bias),)


@dataclass(frozen=True)
class TwoLevel(Rule):
    """A scale of few bits for a block, over one float32 scale for the tensor.

    With ``t = max|tensor| / (largest · largest of the block's scale)`` a block's scale is
    ``b = max|block| / largest / t``, rounded to its format, each quotient a float32
    number; the scale of a value is the float32 product ``b·t``. A block whose ``b``
    rounds to zero becomes zeros.

    Attributes:
        of_block: format of a block's scale; NaN in a block whose element has no code for
            it makes the scale NaN, if this has one.

    Source: NVIDIA, Pretraining Large Language Models with NVFP4, arXiv 2509.25149,
    appendix on quantisation.

    Example:
        >>> from elision.formats import FORMATS
        >>> FORMATS["nvfp4"].rule.of_block.name
        'fp8-e4m3'
    """

    of_block: Floating
    spreads_nan = True

    @property
    def formats(self) -> tuple[Coded, ...]:
        """The block's and the tensor's."""
        return (self.of_block, FP32)

    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """See the class."""
        top = largest_magnitude(groups)
        whole = top.amax() if top.numel() else top.new_zeros(())
        tensor = _float32(whole / (element.largest * self.of_block.largest))
        block = (top / element.largest).float() / FP32.decode(tensor).float()
        if not element.has_nan:
            nan = groups.values.isnan().any(1, keepdim=True)
            block = torch.where(nan, torch.nan, block)
        return self.of_block.saturating.encode(block), tensor

    def scale(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The float32 product of both."""
        block, tensor = self.of_block.decode(codes[0]), FP32.decode(codes[1])
        return (block * tensor).float().double()


@dataclass(frozen=True)
class Mean(Rule):
    """The mean magnitude of the values that are kept; of a group of zeros, 0.

    Attributes:
        kept: ``"all"``: the scale of least error for elements of −1 and 1 (XNOR-Net,
            equation 6); ``"exact"``: those whose mean is the scale of least error for −1,
            0 and 1; ``"twn"``: those above 0.7 of the mean magnitude, the threshold of
            Ternary Weight Networks. NaN and infinity count as zeros.

    See :mod:`elision.formats.projections`, which gives codes as well.

    Example:
        >>> from elision.formats import FORMATS
        >>> FORMATS["ternary"].rule
        Mean(kept='exact')
    """

    kept: str = "all"

    def __post_init__(self) -> None:
        one_of("Mean", "kept", self.kept, ("all", "exact", "twn"))

    def fit(self, groups: Groups, element: Coded) -> tuple[Tensor, ...]:
        """See the class."""
        del element
        size = torch.where(groups.values.isfinite(), groups.values.abs(), 0.0)
        if self.kept == "all":
            total, count = size.sum(1, keepdim=True), groups.counts
        elif self.kept == "exact":
            total, count = _best_prefix(size)
        else:
            mean = size.sum(1, keepdim=True) / groups.counts.clamp(min=1)
            kept = size > TWN * mean
            total = torch.where(kept, size, 0.0).sum(1, keepdim=True)
            count = kept.sum(1, keepdim=True)
        return (FP32.encode((total / count.clamp(min=1)).float()),)


def largest_magnitude(groups: Groups) -> Tensor:
    """The largest finite magnitude of each group, ``(G, 1)`` float64; of none, 0."""
    if not groups.values.shape[1]:
        return groups.values.new_zeros(len(groups.values), 1)
    finite = torch.where(groups.values.isfinite(), groups.values.abs(), 0.0)
    return finite.amax(1, keepdim=True)


def _float32(scale: Tensor) -> Tensor:
    """Codes of float32 scales, those below the smallest normal number raised to it."""
    return FP32.encode(scale.float().clamp(min=FP32.smallest_normal))


def _best_prefix(size: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and number ``k`` of the largest magnitudes of the largest ``S_k²/k``."""
    if not size.shape[1]:
        return size.new_zeros(len(size), 1), size.new_zeros(len(size), 1)
    sums = size.sort(1, descending=True).values.cumsum(1)
    count = torch.arange(1, size.shape[1] + 1, device=size.device)
    best = (sums**2 / count).argmax(1, keepdim=True)
    return sums.gather(1, best), best + 1
