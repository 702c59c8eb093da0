"""Any finite set of values, given one by one."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from elision.formats.base import Coded, Rounding, check_rounding, refuse_nan, uniform

__all__ = ["Table"]


@dataclass(frozen=True)
class Table(Coded):
    """A sign and one of several magnitudes; the code holds the place of the magnitude.

    Zero has no sign. Where there is no zero, what lies between the smallest of either sign
    keeps its own, that of a zero too; at random, it goes to one of the two so that the
    expected value is exact. Values beyond the largest become the largest. NaN has no code.

    Attributes:
        magnitudes: in rising order; their number is a power of two.

    Raises:
        ValueError: magnitudes that do not rise, or of another number.

    Example:
        >>> sign = Table("binary", (1.0,))
        >>> sign.bits, sign.round(torch.tensor([0.1, -3.0, 0.0])).tolist()
        (1, [1.0, -1.0, 1.0])
    """

    magnitudes: tuple[float, ...]

    def __post_init__(self) -> None:
        size, values = len(self.magnitudes), self.magnitudes
        rising = all(a < b for a, b in pairwise(values))
        if not size or size & (size - 1) or values[0] < 0 or not rising:
            raise ValueError(
                f"Table(magnitudes={values!r}): must be 2**n numbers >= 0 that rise"
            )

    @property
    def bits(self) -> int:
        """Width of a code, with its sign."""
        return len(self.magnitudes).bit_length()

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return self.magnitudes[-1]

    def encode(
        self, x: Tensor, rounding: Rounding = "nearest", seed: int = 0
    ) -> Tensor:
        """Places of the magnitudes, and the signs, int64."""
        check_rounding(rounding)
        refuse_nan(self, x)
        x = x.double()
        grid = torch.tensor(self.magnitudes, dtype=torch.float64, device=x.device)
        size = x.abs().clamp(max=self.largest).contiguous()
        place = (torch.searchsorted(grid, size, right=True) - 1).clamp(min=0)
        above = (place + 1).clamp(max=len(grid) - 1)
        low, high = grid[place], grid[above]
        negative = x.signbit()
        index = torch.arange(x.numel(), device=x.device).view(x.shape)
        if rounding == "nearest":
            down, up = size - low, high - size
            place = torch.where(
                (up < down) | (up == down) & (place % 2 == 1), above, place
            )
        elif rounding == "stochastic":
            draw = uniform(index, seed)
            share = (size - low) / torch.where(high > low, high - low, 1.0)
            place = torch.where((size >= low) & (draw < share), above, place)
            # Between the smallest of either sign.
            between = size < low
            least = self.magnitudes[0] or 1.0
            negative = torch.where(between, draw >= (x / least + 1) / 2, negative)
        negative = negative & (grid[place] > 0)
        return place | negative.long() << (self.bits - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Values of the codes, float64."""
        codes = codes.long()
        grid = torch.tensor(self.magnitudes, dtype=torch.float64, device=codes.device)
        size = grid[codes & (len(grid) - 1)]
        return torch.where(codes >> (self.bits - 1) & 1 == 1, -size, size)
