"""The table of K-TanH: 32 pieces of tanh on the bit pattern of a bfloat16, and their fit.

A bfloat16 is a sign, 8 bits of exponent ``E`` and 7 of fraction ``M``. Between the two
thresholds, ``t = (E & 3)·8 + (M >> 4)`` names a piece: two bits of the exponent (one
octave each, 0.25 to 4) and three of the fraction. The piece gives the result's exponent
field and its fraction ``(M >> shift) + offset``.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

__all__ = ["LINEAR_BELOW", "ONE_ABOVE", "PIECES", "PUBLISHED", "KTanhTable", "fitted"]

#: Number of pieces: four octaves of eight.
PIECES = 32

#: Magnitude below which K-TanH is x itself, as bits of a bfloat16: 0.25.
LINEAR_BELOW = 0x3E80

#: Magnitude above which K-TanH is 1, as bits of a bfloat16: 3.75.
ONE_ABOVE = 0x4070

_FRACTION_BITS = 7
_FRACTION = (1 << _FRACTION_BITS) - 1


@dataclass(frozen=True)
class KTanhTable:
    """Result exponent, shift and offset of each of the 32 pieces.

    Attributes:
        exponent: exponent field of the result, 32 integers in [0, 255].
        shift: right shift of the input's fraction, 32 integers in [0, 7].
        offset: what is added to the shifted fraction; the sum stays in [0, 127].

    Raises:
        ValueError: not 32 entries, or an entry out of its range.

    Example:
        >>> PUBLISHED.exponent[8], PUBLISHED.shift[8], PUBLISHED.offset[8]
        (125, 1, 1)
        >>> f"{PUBLISHED.largest_error:.4f}"
        '0.0089'
    """

    exponent: tuple[int, ...]
    shift: tuple[int, ...]
    offset: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("exponent", "shift", "offset"):
            given = len(getattr(self, name))
            if given != PIECES:
                raise ValueError(
                    f"KTanhTable({name}): must be {PIECES} integers, got {given}"
                )
        for name, most in (("exponent", 255), ("shift", 7)):
            if not all(0 <= value <= most for value in getattr(self, name)):
                raise ValueError(f"KTanhTable({name}): must be integers in [0, {most}]")
        for piece in range(PIECES):
            fractions = inputs(piece) & _FRACTION
            result = (fractions >> self.shift[piece]) + self.offset[piece]
            if result.min() < 0 or result.max() > _FRACTION:
                raise ValueError(
                    f"KTanhTable(offset[{piece}]={self.offset[piece]}): the result's "
                    f"fraction must stay in [0, {_FRACTION}], it goes from "
                    f"{int(result.min())} to {int(result.max())}"
                )

    @cached_property
    def base(self) -> tuple[int, ...]:
        """What is added to the shifted fraction to give the result's 15 bits."""
        pairs = zip(self.exponent, self.offset, strict=True)
        return tuple(
            (exponent << _FRACTION_BITS) + offset for exponent, offset in pairs
        )

    @cached_property
    def integers(self) -> tuple[Tensor, Tensor]:
        """Base and shift as the kernel reads them, int32 on the CPU."""
        return (
            torch.tensor(self.base, dtype=torch.int32, device="cpu"),
            torch.tensor(self.shift, dtype=torch.int32, device="cpu"),
        )

    def lookup(self, bits: Tensor) -> Tensor:
        """K-TanH of bfloat16 bit patterns, in integers alone: the definition.

        Args:
            bits: any shape, int32, in [0, 65535].

        Returns:
            Bit patterns of the results, int32.
        """
        base = torch.tensor(self.base, dtype=torch.int32, device=bits.device)
        shift = torch.tensor(self.shift, dtype=torch.int32, device=bits.device)
        magnitude, sign = bits & 0x7FFF, bits & 0x8000
        piece = (bits >> 4) & (PIECES - 1)
        result = base[piece] + ((bits & _FRACTION) >> shift[piece])
        result = torch.where(magnitude > ONE_ABOVE, _ONE, result)
        is_nan = magnitude > _INFINITY
        result = torch.where((magnitude < LINEAR_BELOW) | is_nan, magnitude, result)
        return result | sign

    @property
    def errors(self) -> Tensor:
        """``|K-TanH(x) - tanh(x)|`` of every bfloat16 from 0.25 to 3.75, float64."""
        bits = torch.arange(LINEAR_BELOW, ONE_ABOVE + 1, dtype=torch.int32)
        return (values(self.lookup(bits)) - values(bits).tanh()).abs()

    @property
    def largest_error(self) -> float:
        """The largest of :attr:`errors`."""
        return float(self.errors.max())


_ONE = 0x3F80
_INFINITY = 0x7F80


def values(bits: Tensor) -> Tensor:
    """The numbers, float64, that bfloat16 bit patterns (int32) stand for."""
    return (bits << 16).view(torch.float32).double()


def inputs(piece: int) -> Tensor:
    """Bit patterns of the bfloat16 numbers between the thresholds in a piece, int32."""
    bits = torch.arange(LINEAR_BELOW, ONE_ABOVE + 1, dtype=torch.int32)
    return bits[(bits >> 4) & (PIECES - 1) == piece]


def _table(*pieces: tuple[str, str, str]) -> KTanhTable:
    rows = [
        [int(n) for part in column for n in part.split()]
        for column in zip(*pieces, strict=True)
    ]
    return KTanhTable(*map(tuple, rows))


#: The table of Kundu et al., "K-TanH: Efficient TanH for Deep Learning", arXiv 1909.07729,
#: as transcribed in a public file that cites the paper.
PUBLISHED = _table(
    ("126 " * 8, "2 4 4 4 6 6 6 6", "119 122 123 123 126 126 126 126"),
    ("125 " * 8, "1 0 0 0 0 0 0 0", "1 -4 -6 -7 -10 -12 -15 -18"),
    ("125 " + "126 " * 7, "0 1 1 1 1 1 1 1", "112 -4 -1 2 3 4 4 4"),
    ("126 " * 8, "0 1 1 1 2 2 2 4", "65 72 73 73 88 89 89 110"),
)


@cache
def fitted() -> KTanhTable:
    """The table that brute force finds: each piece's smallest largest error.

    Tried are all exponents from 2^-3 to 2^-1, shifts and offsets of every piece; among
    equals the one with the smallest sum of errors. The published table's largest error
    is also this one's: it lies in a piece that no choice improves.

    Example:
        >>> fitted().largest_error == PUBLISHED.largest_error
        True
    """
    best = [_best(inputs(piece)) for piece in range(PIECES)]
    return KTanhTable(*map(tuple, zip(*best, strict=True)))


def _best(bits: Tensor) -> tuple[int, int, int]:
    """Exponent, shift and offset of the piece that holds these inputs."""
    fraction, wanted = bits & _FRACTION, values(bits).tanh()
    found: list[tuple[float, float, tuple[int, int, int]]] = []
    for exponent in (124, 125, 126):
        for shift in range(_FRACTION_BITS + 1):
            shifted = fraction >> shift
            offsets = torch.arange(
                -int(shifted.min()), _FRACTION - int(shifted.max()) + 1
            )
            sums = (shifted[None] + offsets[:, None]).int()
            errors = (values((exponent << _FRACTION_BITS) + sums) - wanted).abs()
            largest, total = errors.amax(1), errors.sum(1)
            least = largest.min()
            place = int(torch.where(largest == least, total, torch.inf).argmin())
            choice = (exponent, shift, int(offsets[place]))
            found.append((float(least), float(total[place]), choice))
    return min(found)[2]
