"""Units of a mask: single weights, or whole slices, filters, channels, blocks.

A pattern divides a weight into *units* that are active or inactive together. Scores are
summed over a unit, budgets count units, and a mask of units is expanded to weights.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod

from torch import Tensor

from elision.common.checks import integer
from elision.common.names import lookup
from elision.operands.outputs_first import turned, turned_shape

__all__ = [
    "Block",
    "Channel",
    "Filter",
    "KernelSlice",
    "Pattern",
    "Turned",
    "Unstructured",
    "pattern_named",
]

Shape = tuple[int, ...]


class Pattern(ABC):
    """Division of a weight ``(K, C/groups, *kernel)`` or ``(columns, inner)`` into units.

    Example:
        >>> isinstance(pattern_named("block-2x4"), Pattern)
        True
    """

    def check(self, layer: str, shape: Shape) -> None:  # noqa: B027 - most fit any layer
        """Raise ValueError where the pattern does not divide a layer."""

    @abstractmethod
    def grid(self, shape: Shape) -> Shape:
        """Shape of the units."""

    @abstractmethod
    def reduce(self, score: Tensor) -> Tensor:
        """Sum of a score over each unit, in the shape of :meth:`grid`."""

    @abstractmethod
    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Mask of the weights from a mask of the units."""

    def units(self, shape: Shape) -> int:
        """Number of units of a weight."""
        return prod(self.grid(shape))

    def active(self, mask: Tensor) -> Tensor:
        """Mask of the units that a mask of the weights makes active."""
        return self.reduce(mask.float()) > 0


@dataclass(frozen=True)
class Turned(Pattern):
    """A pattern of weights that have their inputs on axis 0 (transposed convolutions).

    Attributes:
        inner: the pattern, of the weight with its outputs on axis 0.
        groups: of the convolution.

    Example:
        >>> Turned(Filter()).units((8, 4, 3, 3))
        4
    """

    inner: Pattern
    groups: int = 1

    def check(self, layer: str, shape: Shape) -> None:
        self.inner.check(layer, turned_shape(shape, self.groups))

    def grid(self, shape: Shape) -> Shape:
        return self.inner.grid(turned_shape(shape, self.groups))

    def reduce(self, score: Tensor) -> Tensor:
        return self.inner.reduce(turned(score, self.groups))

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        own = self.inner.expand(units, turned_shape(shape, self.groups))
        return turned(own, self.groups)


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Single weights.

    Example:
        >>> Unstructured().units((8, 4, 3, 3))
        288
    """

    def grid(self, shape: Shape) -> Shape:
        return tuple(shape)

    def reduce(self, score: Tensor) -> Tensor:
        return score

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        del shape
        return units


class _Sliced(Pattern):
    """Units that are all weights with the same index on some axes."""

    axes: tuple[int, ...]

    def grid(self, shape: Shape) -> Shape:
        return tuple(shape[axis] for axis in self.axes)

    def reduce(self, score: Tensor) -> Tensor:
        others = [axis for axis in range(score.dim()) if axis not in self.axes]
        return score.sum(others) if others else score

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        view = [n if axis in self.axes else 1 for axis, n in enumerate(shape)]
        return units.view(view).expand(shape).clone()


@dataclass(frozen=True)
class Filter(_Sliced):
    """Output channels: ``W[k]``.

    Example:
        >>> Filter().units((8, 4, 3, 3))
        8
    """

    axes = (0,)


@dataclass(frozen=True)
class Channel(_Sliced):
    """Input channels: ``W[:, c]``.

    Example:
        >>> Channel().units((8, 4, 3, 3))
        4
    """

    axes = (1,)


@dataclass(frozen=True)
class KernelSlice(_Sliced):
    """Kernels: ``W[k, c]``; single weights of a linear layer.

    Example:
        >>> KernelSlice().units((8, 4, 3, 3))
        32
    """

    axes = (0, 1)


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of the matrix ``(K, C/groups·R·S)`` that a weight is.

    Attributes:
        rows: output channels of a block; divides ``K``.
        columns: inputs of a block; divides ``C/groups·R·S``.

    Raises:
        ValueError: a size is not an integer >= 1.

    Example:
        >>> Block(4, 4).units((8, 4, 3, 3))
        18
    """

    rows: int = 4
    columns: int = 4

    def __post_init__(self) -> None:
        integer("Block", "rows", self.rows)
        integer("Block", "columns", self.columns)

    def check(self, layer: str, shape: Shape) -> None:
        rows, columns = shape[0], prod(shape[1:])
        if rows % self.rows or columns % self.columns:
            raise ValueError(
                f"layer {layer}: blocks of {self.rows}x{self.columns} do not divide its "
                f"weight of {rows}x{columns}; choose divisors, or leave the layer dense"
            )

    def grid(self, shape: Shape) -> Shape:
        return shape[0] // self.rows, prod(shape[1:]) // self.columns

    def reduce(self, score: Tensor) -> Tensor:
        rows, columns = self.grid(tuple(score.shape))
        blocks = score.reshape(rows, self.rows, columns, self.columns)
        return blocks.sum((1, 3))

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        wide = units.repeat_interleave(self.rows, 0)
        return wide.repeat_interleave(self.columns, 1).view(shape)


_PATTERNS: dict[str, Pattern] = {
    "unstructured": Unstructured(),
    "kernel": KernelSlice(),
    "filter": Filter(),
    "channel": Channel(),
    "block-4x4": Block(4, 4),
}


def pattern_named(name: str) -> Pattern:
    """The pattern of a name; ``"block-<rows>x<columns>"`` is a block of any size.

    Raises:
        ValueError: unknown name.
    """
    block = re.fullmatch(r"block-(\d+)x(\d+)", name)
    if block:
        return Block(int(block[1]), int(block[2]))
    return lookup("pattern", name, _PATTERNS)
