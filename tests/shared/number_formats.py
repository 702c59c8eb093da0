"""Numbers at which a format may go wrong, and how two results are compared."""

import math

import torch
from torch import Tensor

from elision.formats import Coded

__all__ = ["SPECIAL", "codes_of", "probes", "same"]

SPECIAL = (
    0.0,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    1e-45,
    -1e-45,
    1e-38,
    3e38,
    -3.4e38,
)


def codes_of(format: Coded) -> Tensor:
    return torch.arange(2**format.bits)


def probes(format: Coded) -> Tensor:
    """Float32: all values, the ties between them, and the neighbours of both."""
    values = format.decode(codes_of(format))
    values = values[values.isfinite()].unique()
    grid = torch.cat([values, torch.tensor([2.0 * values[-1] - values[-2]]).double()])
    grid = torch.cat([-grid[-1:], grid])
    ties = (grid[1:] + grid[:-1]) / 2
    points = torch.cat([grid, ties]).float()
    up = points.nextafter(torch.tensor(math.inf))
    down = points.nextafter(torch.tensor(-math.inf))
    return torch.cat([points, up, down, torch.tensor(SPECIAL)])


def same(found: Tensor, expected: Tensor) -> bool:
    """Equal with NaN for NaN and with the sign of zero."""
    number = ~expected.isnan()
    return (
        torch.equal(found.isnan(), expected.isnan())
        and torch.equal(found[number], expected[number])
        and torch.equal(found[number].signbit(), expected[number].signbit())
    )
