"""What a product costs by Winograd's transforms: multiplications, operations, bytes."""

import math
from dataclasses import dataclass

from elision.common.checks import integer
from elision.engines.winograd.cook_toom import Matrix
from elision.engines.winograd.parts import Part, parts_of
from elision.engines.winograd.products import tile_transforms
from elision.products import Conv2dGeometry, Product

__all__ = ["Operations", "WinogradCost", "cost"]

_TENSORS = ("first", "second", "result")
_ZERO_OR_SIGN = (0, 1, -1)


@dataclass(frozen=True)
class Operations:
    """Additions and multiplications by constants.

    Example:
        >>> Operations(2, 1) + 3 * Operations(1, 0)
        Operations(adds=5, multiplies=1)
    """

    adds: int = 0
    multiplies: int = 0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.adds + other.adds, self.multiplies + other.multiplies)

    def __rmul__(self, times: int) -> "Operations":
        return Operations(times * self.adds, times * self.multiplies)

    @property
    def total(self) -> int:
        """Both together."""
        return self.adds + self.multiplies


@dataclass(frozen=True)
class WinogradCost:
    """Cost of one product by F(m, r), beside that of direct computation.

    Attributes:
        products: multiplications of values, ``N·⌈P/m⌉·⌈Q/m⌉·C·K·(m + r − 1)²``.
        direct_products: those of the product computed directly.
        operations: of each transform, straight (no common subexpressions), by the tensor
            that it makes or reads: ``first`` and ``second`` operand, ``result``.
        words: read and written by each stage: ``first``, ``second``, ``product``,
            ``result``. Padding is read like other values.
        direct_words: the three tensors once each.
        word_bytes: of one value.

    Example:
        >>> layer = Conv2dGeometry(1, 64, 56, 56, 64, kernel=3, padding=1)
        >>> found = cost(layer, 4, Product.FORWARD)
        >>> found.products, found.direct_products / found.products
        (28901376, 4.0)
    """

    products: int
    direct_products: int
    operations: dict[str, Operations]
    words: dict[str, int]
    direct_words: int
    word_bytes: int = 4

    @property
    def saving(self) -> float:
        """Direct products over those of Winograd; the transforms are left out."""
        return self.direct_products / self.products

    @property
    def bytes_moved(self) -> int:
        """By all stages."""
        return self.word_bytes * sum(self.words.values())

    @property
    def direct_bytes(self) -> int:
        """The least that direct computation moves."""
        return self.word_bytes * self.direct_words

    @property
    def intensity(self) -> float:
        """Operations of the product stage over the bytes it moves."""
        return 2 * self.products / (self.word_bytes * self.words["product"])


def cost(
    geometry: Conv2dGeometry, m: int, kind: Product, *, word_bytes: int = 4
) -> WinogradCost:
    """The cost of product ``kind`` of a convolution by F(m, r).

    Args:
        geometry: kernel, padding, groups, and strides or dilation.
        m: outputs of a tile along each axis.
        kind: which of the three products.
        word_bytes: of one value.

    Raises:
        ValueError: an axis has a stride and a dilation above 1, or ``m`` is not a
            positive integer.
    """
    integer("winograd.cost", "m", m)
    products = 0
    operations = {name: Operations() for name in _TENSORS}
    words: dict[str, int] = dict.fromkeys((*operations, "product"), 0)
    for part in parts_of(geometry):
        one = _Part(geometry, part, m)
        products += one.products
        stages = [one.stage(tensor, kind) for tensor in (*kind.operands, kind.absent)]
        for name, (work, plain, transformed) in zip(operations, stages, strict=True):
            operations[name] += work
            words[name] += plain + transformed
            words["product"] += transformed
    tensors = (geometry.shape_of(name) for name in (*kind.operands, kind.absent))
    return WinogradCost(
        products=products,
        direct_products=geometry.dense_macs,
        operations=operations,
        words=words,
        direct_words=sum(math.prod(shape) for shape in tensors),
        word_bytes=word_bytes,
    )


class _Part:
    """Counts of one part of a convolution."""

    def __init__(self, geometry: Conv2dGeometry, part: Part, m: int) -> None:
        self.axes = tile_transforms(m, part.taps)
        v, h = self.axes
        self.geometry, self.part = geometry, part
        self.outputs = part.outputs[0] * part.outputs[1]
        self.tile = v.products * h.products
        rows, columns = (
            -(-size // t.outputs)
            for size, t in zip(part.outputs, self.axes, strict=True)
        )
        self.read = (rows * v.outputs + v.taps - 1) * (columns * h.outputs + h.taps - 1)
        self.tiles = geometry.batch * rows * columns
        self.filters = geometry.out_channels * geometry.in_channels // geometry.groups
        self.products = self.tiles * self.filters * self.tile

    def stage(self, tensor: str, kind: Product) -> tuple[Operations, int, int]:
        """Operations, plain words and transformed words of a tensor's transform."""
        which = {"weight": "filter", "input": "data", "grad_output": "inverse"}[tensor]
        v, h = (getattr(t, which) for t in self.axes)
        # The forward product reads X and W and writes Y by the three matrices; where a
        # tensor has the other part, its transform is the adjoint.
        if (tensor == kind.absent) != (tensor == "grad_output"):
            v, h = _transposed(v), _transposed(h)
        work = _two_passes(v, h)
        if tensor == "weight":
            size = self.part.taps[0] * self.part.taps[1]
            return self.filters * work, self.filters * size, self.filters * self.tile
        channels, plain = self.geometry.out_channels, self.outputs
        if tensor == "input":
            channels, plain = self.geometry.in_channels, self.read
            if kind.absent == tensor:  # overlapping tiles are added
                overlap = self.tile - self.axes[0].outputs * self.axes[1].outputs
                work += Operations(adds=overlap)
        pixels = self.geometry.batch * channels * plain
        return self.tiles * channels * work, pixels, self.tiles * channels * self.tile


def _two_passes(first: Matrix, second: Matrix) -> Operations:
    """M x M'ᵀ: M on every column, then M' on every row of what it gives."""
    return len(second[0]) * _one_pass(first) + len(first) * _one_pass(second)


def _one_pass(matrix: Matrix) -> Operations:
    """A matrix times a vector, entries of 0, 1 and −1 without a multiplication."""
    adds = sum(max(0, sum(map(bool, row)) - 1) for row in matrix)
    multiplies = sum(value not in _ZERO_OR_SIGN for row in matrix for value in row)
    return Operations(adds, multiplies)


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))
