"""Drawn shapes and tensors of one trial; the same for the same words."""

import random
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from elision.products import Conv2dGeometry

__all__ = ["Draw", "check_near"]

T = TypeVar("T")

#: Values where arithmetic ends: infinities, NaN, zeros, subnormal and largest numbers.
_EDGES = (torch.inf, -torch.inf, torch.nan, -0.0, 1e-40, 3e38, -3e38)

#: Images, channels or values that the kernels take together; sizes near a multiple of it
#: are drawn more often.
_LANES = 16


class Draw:
    """What one trial draws.

    Args:
        words: that the trial is known by.

    Attributes:
        is_plain: whether all values are ordinary numbers, so that results can be compared.
        threads: of the kernels.
    """

    def __init__(self, words: str) -> None:
        self._random = random.Random(words)
        self._generator = torch.Generator().manual_seed(self._random.getrandbits(63))
        self.is_plain = self.chance(0.8)
        self.threads = self.size(1, 4)

    def chance(self, share: float) -> bool:
        """True in this share of the draws."""
        return self._random.random() < share

    def choice(self, among: Sequence[T]) -> T:
        """One of several."""
        return self._random.choice(among)

    def size(self, least: int, most: int) -> int:
        """A number in ``[least, most]``: any, the least, or one near a multiple of 16."""
        if self.chance(0.2):
            return least
        number = self._random.randint(least, most)
        if self.chance(0.3):
            number = round(number / _LANES) * _LANES + self._random.randint(-1, 1)
        return min(most, max(least, number))

    def values(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normal values, from none to all of them zeros, at an odd address."""
        x = torch.randn(shape, generator=self._generator)
        density = self.choice((0.0, 0.1, 0.5, 1.0, 1.0))
        x *= torch.rand(shape, generator=self._generator) < density
        if not self.is_plain:
            places = torch.rand(shape, generator=self._generator) < 0.1
            x[places] = self.choice(_EDGES)
        return self.placed(x.to(dtype))

    def integers(self, largest: int, *shape: int) -> Tensor:
        """Whole numbers up to a magnitude, float32."""
        x = torch.randint(-largest, largest + 1, shape, generator=self._generator)
        return self.placed(x.float())

    def placed(self, x: Tensor) -> Tensor:
        """The values at the end of memory that is no larger, at any multiple of their size."""
        ahead = self._random.randrange(_LANES)
        memory = torch.empty(ahead + x.numel(), dtype=x.dtype)
        return memory[ahead:].view(x.shape).copy_(x)

    def convolution(self, channels: int = 40, side: int = 1) -> Conv2dGeometry:
        """A small layer without groups; channels are multiples of ``side``."""
        pairs = [
            (self.size(1, 4), self.size(1, 3), self.size(0, 2), self.size(1, 2))
            for _ in range(2)
        ]
        kernel, stride, padding, dilation = zip(*pairs, strict=True)
        least = [
            max(1, d * (k - 1) + 1 - 2 * p)
            for k, p, d in zip(kernel, padding, dilation, strict=True)
        ]
        height, width = (low + self.size(0, 9) for low in least)
        inner, outer = (side * self.size(1, channels // side) for _ in range(2))
        return Conv2dGeometry(
            *(self.size(1, 34), inner, height, width, outer),
            *(kernel, stride, padding, dilation),
        )


def check_near(draw: Draw, found: Tensor, expected: Tensor, terms: int = 1) -> None:
    """Compare sums of so many products of normal values, if all are ordinary numbers.

    Raises:
        ArithmeticError: they differ by more than rounding.
    """
    if not draw.is_plain or not found.numel():
        return
    scale = float(expected.abs().max()) + 1
    error = float((found.double() - expected.double()).abs().max())
    if not error <= 1e-6 * scale * max(16.0, terms**0.5):
        raise ArithmeticError(f"an error of {error:.1e}, of values up to {scale:.1e}")
