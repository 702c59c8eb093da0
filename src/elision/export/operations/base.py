"""An operation between int8 codes."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["HIGHEST", "LOWEST", "Clamped", "Operation", "as_codes", "code_of"]

#: Codes of int8.
LOWEST, HIGHEST = -128, 127


@dataclass(frozen=True, eq=False, kw_only=True)
class Operation:
    """Operation that reads int8 codes and writes int8 codes, by integers alone.

    Codes have the layouts of torch, batch first: ``(N, C, H, W)`` and ``(N, features)``. A
    code ``q`` of a value with scale ``s`` and zero point ``z`` stands for ``s·(q − z)``.

    Attributes:
        name: of the operation and of the value that it writes.
        inputs: names of the values that it reads.

    Example:
        >>> from elision.export.operations import Reshape
        >>> Reshape(name="flat", inputs=("input",), shape=(4,)).constants()
        {}
    """

    name: str
    inputs: tuple[str, ...]

    #: Noun for tables.
    kind: ClassVar[str]
    #: Whether what it reads and writes has one scale and one zero point.
    keeps_scale: ClassVar[bool] = False

    def run(self, *codes: Tensor) -> Tensor:
        """Codes that the operation writes, int8, from those that it reads, int8."""
        raise NotImplementedError

    def constants(self) -> dict[str, Tensor]:
        """Arrays that a program for it stores, by name."""
        return {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Clamped(Operation):
    """Operation whose sums are rescaled, moved to a zero point and clamped.

    Attributes:
        zero: zero point of the codes that are written.
        low, high: codes between which they lie; an activation function such as ReLU6 is
            nothing else.

    Example:
        >>> Clamped(name="a", inputs=("x",), zero=-100, low=-100).clamped(
        ...     torch.tensor([-5, 30, 500])).tolist()
        [-100, -70, 127]
    """

    zero: int
    low: int = LOWEST
    high: int = HIGHEST

    def clamped(self, rescaled: Tensor) -> Tensor:
        """int8 codes of integers that are rescaled but not yet moved."""
        return (rescaled + self.zero).clamp(self.low, self.high).to(torch.int8)


def code_of(value: float, scale: float, zero: int) -> int:
    """The code of one number, clamped to int8.

    Example:
        >>> code_of(6.0, 0.05, -128), code_of(math.inf, 0.05, 0)
        (-8, 127)
    """
    if math.isinf(value):
        return HIGHEST if value > 0 else LOWEST
    return min(max(round(value / scale) + zero, LOWEST), HIGHEST)


def as_codes(values: Tensor, scale: float, zero: int) -> Tensor:
    """int8 codes of real numbers: ``clamp(round(x/s) + z)``, halves to even."""
    return (values / scale).round().add(zero).clamp(LOWEST, HIGHEST).to(torch.int8)
