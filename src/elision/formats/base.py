"""Number formats as data: what every format can do.

A format is a frozen dataclass. Its methods are plain arithmetic in float64, slow and meant
to be obviously right; :func:`elision.formats.round` takes a native kernel or torch's
conversion where that gives the same values.

Two kinds fill in :class:`Format`. The codes of a :class:`Coded` format stand alone: one
number, one code (:mod:`elision.formats.floating`, :mod:`elision.formats.integer`). The
values of a :class:`~elision.formats.scaled.Scaled` format share scales, by the tensor, the
channel or the block: it holds the coded format of an element and the rule of the scale.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Self, TypeVar, get_args

import torch
from torch import Tensor

from elision.common.checks import one_of

__all__ = [
    "IN_GRAPHS",
    "Coded",
    "Format",
    "Rounding",
    "check_rounding",
    "power_of_two",
    "refuse_nan",
    "rounded_to_integer",
    "seed_word",
    "uniform",
]

#: To the nearest value, ties to the even code; towards zero; up or down at random, with
#: the probabilities that make the expected value exact.
Rounding = Literal["nearest", "zero", "stochastic"]

_LOW = 0xFFFF_FFFF

Word = TypeVar("Word", int, Tensor)


@dataclass(frozen=True)
class Format(ABC):
    """A set of numbers.

    Attributes:
        name: of the format in recipes and tables.

    Example:
        >>> from elision.formats import FORMATS
        >>> FORMATS["fp8-e4m3"].round(torch.tensor([0.3, 100.0])).tolist()
        [0.3125, 96.0]
    """

    name: str

    @property
    @abstractmethod
    def bits(self) -> int:
        """Width of the code of one value, its share of a scale aside."""

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest finite value; of a format with scales, at scale 1."""

    @property
    def saturating(self) -> Self:
        """This format with overflow to the largest value."""
        return self

    @abstractmethod
    def round(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Tensor:
        """Values of the format in place of ``x``, in the dtype of ``x``.

        Args:
            x: floating-point values of any shape.
            rounding: see :data:`Rounding`.
            seed: of stochastic rounding, which depends on the seed and on an element's
                index alone.
            axis: the dimension along which blocks run; of a format with one scale per
                channel, the dimension whose slices have a scale each. A format without
                shared scales does not read it.

        Raises:
            ValueError: an unknown rounding, or an axis that ``x`` has not.
        """

    # While torch.compile traces, this runs for real. It is a method, as torch below 2.13
    # takes no dataclass as an argument of a constant.
    @torch.compiler.assume_constant_result
    def in_graph(self) -> str:
        """The text that stands for this format in graphs of this process."""
        text = repr(self)
        IN_GRAPHS[text] = self
        return text


#: Formats of the graphs of this process, by the text that stands for them there.
IN_GRAPHS: dict[str, Format] = {}


class Coded(Format):
    """A format whose codes stand alone: one number, one code.

    Example:
        >>> from elision.formats import FORMATS
        >>> half = FORMATS["fp16"]
        >>> isinstance(half, Coded), half.encode(torch.tensor(1.0)).item()
        (True, 15360)
    """

    @property
    def has_nan(self) -> bool:
        """Whether a code stands for NaN."""
        return False

    @abstractmethod
    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0
    ) -> Tensor:
        """Codes of the rounded values, int64, of the shape of ``x``.

        Args and errors are those of :meth:`Format.round`.

        Raises:
            ValueError: NaN where no code stands for it.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Values of the codes, float64, of the shape of ``codes``.

        Args:
            codes: integers in [0, 2**bits).
        """

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0, axis: int = -1
    ) -> Tensor:
        """Values of the format in place of ``x``; NaN stays NaN, code or none."""
        del axis
        if self.has_nan:
            return self.decode(self.encode(x, rounding, seed)).to(x.dtype)
        number = self.encode(torch.where(x.isnan(), 0.0, x), rounding, seed)
        return torch.where(x.isnan(), x, self.decode(number).to(x.dtype))


def check_rounding(rounding: Rounding) -> None:
    """Raise ValueError for an unknown rounding.

    Example:
        >>> check_rounding("up")
        Traceback (most recent call last):
        ValueError: round(rounding='up'): must be 'nearest' or 'zero' or 'stochastic'
    """
    one_of("round", "rounding", rounding, get_args(Rounding))


def refuse_nan(format: Format, x: Tensor) -> None:
    """Raise ValueError if there is a NaN, for a format that has no code for it.

    Example:
        >>> from elision.formats import FORMATS
        >>> FORMATS["fp4-e2m1"].encode(torch.tensor(torch.nan))
        Traceback (most recent call last):
        ValueError: encode: 1 NaN among 1 values, and fp4-e2m1 has no code for it
    """
    if count := int(x.isnan().sum()):
        raise ValueError(
            f"encode: {count} NaN among {x.numel()} values, and {format.name} has no "
            "code for it"
        )


def power_of_two(exponent: Tensor) -> Tensor:
    """``2^exponent``, exactly, as float64.

    Args:
        exponent: int64, in [-1022, 1023].

    Example:
        >>> power_of_two(torch.tensor([-1, 3])).tolist()
        [0.5, 8.0]
    """
    return ((exponent + 1023) << 52).view(torch.float64)


def rounded_to_integer(x: Tensor, rounding: Rounding, seed: int) -> Tensor:
    """Whole numbers in place of float64 values that are not negative.

    Raises:
        ValueError: an unknown rounding.

    Example:
        >>> rounded_to_integer(torch.tensor([0.5, 1.5, 1.6]), "nearest", 0).tolist()
        [0.0, 2.0, 2.0]
    """
    check_rounding(rounding)
    if rounding == "nearest":
        return torch.round(x)  # ties to even
    below = torch.floor(x)
    if rounding == "zero":
        return below
    index = torch.arange(x.numel(), device=x.device).view(x.shape)
    return below + (uniform(index, seed) < x - below)


def uniform(index: Tensor, seed: int) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2**-24, one for each index and seed.

    The top 24 bits of a hash of 32, so that a kernel compares them in float32 exactly.

    A hash, not a sequence: the same for every order of evaluation and number of threads.

    Args:
        index: int64, not negative, of any shape.
        seed: any integer; 64 bits of it have a say.

    Source: the finaliser ``lowbias32`` of Wellons, "Prospecting for Hash Functions", 2018.

    Example:
        >>> uniform(torch.arange(3), seed=1).shape
        torch.Size([3])
    """
    high = _hashed((index >> 32) ^ seed_word(seed))
    return (_hashed((index & _LOW) ^ high) >> 8).double() / 2**24


def seed_word(seed: int) -> int:
    """The 32 bits that rounding reads of a seed: itself, if it has no more.

    Those above are hashed into them, so that seeds that differ there alone differ.

    Example:
        >>> seed_word(7), seed_word(7 + 2**32) == 7
        (7, False)
    """
    return (seed ^ _hashed(seed >> 32 & _LOW)) & _LOW


def _hashed(x: Word) -> Word:
    """``lowbias32`` of 32-bit numbers in int64; the products wrap, their low half holds."""
    x = (x ^ (x >> 16)) * 0x7FEB_352D & _LOW
    x = (x ^ (x >> 15)) * 0x846C_A68B & _LOW
    return x ^ (x >> 16)
