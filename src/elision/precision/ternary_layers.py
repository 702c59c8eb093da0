"""Layers with ternary weights and 8-bit inputs, whose residual terms can be disabled."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.engines.native.ternary import (
    LARGEST_BLOCK,
    ROWS,
    PackedTernary,
    quantised,
)
from elision.engines.native.ternary_sums import AddedTernary, planes
from elision.formats.ternary_blocks import TernaryBlocks, weight_of
from elision.native.shared_object import unavailable
from elision.products import Conv2dGeometry

__all__ = ["TERNARY", "InputGrid", "Terms", "TernaryLayer"]


@dataclass(frozen=True)
class InputGrid:
    """Even steps for the input of a layer, one step for the whole tensor.

    Attributes:
        step: what an integer is worth, positive.
        zero: the integer of 0.0: the lowest for an input that is never negative, so that
            all codes are used, else 0.
        bits: of an integer.

    Example:
        >>> grid = InputGrid.of(torch.tensor([0.0, 2.55]))
        >>> grid.zero, grid.rounded(torch.tensor([0.014, 3.0])).tolist()
        (-128, [0.009999999776482582, 2.549999952316284])
    """

    step: float
    zero: int = 0
    bits: int = 8

    @classmethod
    def of(cls, x: Tensor, bits: int = 8) -> "InputGrid":
        """The finest grid that reaches every value of ``x``."""
        low, high = (v.item() for v in x.aminmax()) if x.numel() else (0.0, 0.0)
        return cls.between(low, high, bits)

    @classmethod
    def between(cls, low: float, high: float, bits: int = 8) -> "InputGrid":
        """The finest grid that reaches from ``low`` to ``high``.

        All zeros give a step of 1.
        """
        half = 2 ** (bits - 1)
        if low >= 0:
            return cls(_single(high / (2 * half - 1)) or 1.0, -half, bits)
        return cls(_single(max(-low, high) / (half - 1)) or 1.0, 0, bits)

    def narrowed(self, share: float) -> "InputGrid":
        """The grid with steps of a share of the length, so that it ends earlier."""
        return InputGrid(_single(self.step * share), self.zero, self.bits)

    def rounded(self, x: Tensor) -> Tensor:
        """The nearest values of the grid, ties to even; NaN stays."""
        half = 2 ** (self.bits - 1)
        inverse = _single(1 / self.step)
        whole = torch.round(x.float() * inverse) + self.zero
        values = (whole.clamp(-half, half - 1) - self.zero) * self.step
        return values.to(x.dtype)


def _single(value: float) -> float:
    """A Python number as float32 has it, so that kernels and torch see the same."""
    return torch.tensor(value, dtype=torch.float32).item()


class Terms:
    """The terms of one layer, and how many of each block are enabled.

    The kernel computes a convolution by additions alone, a linear layer by packed codes.
    ``counts`` of each block's terms are enabled now; ``given`` is the most so far, which
    the kernel's weights hold.

    Args:
        blocks: the terms.
        weight: what they stand for; kept, to restore it.
        grid: of the input; None leaves the input as it is.
        engine: ``"native"`` computes by the ternary kernel where it can.
    """

    def __init__(
        self, blocks: TernaryBlocks, weight: Tensor, grid: InputGrid | None, engine: str
    ) -> None:
        self.blocks, self.grid, self.engine = blocks, grid, engine
        self.original = weight.detach().clone()
        self.counts = torch.ones(blocks.scales.shape[1:], dtype=torch.long)
        self.given = self.counts
        self._groups = 1
        self._packed: PackedTernary | AddedTernary | None = None
        self._sums: Tensor | None = None

    def enable(self, weight: Tensor, counts: Tensor) -> None:
        """Enable so many terms of each block and write their sum into the weight."""
        self.counts = counts
        rows = self.blocks.decode(counts)
        with torch.no_grad():
            weight.copy_(weight_of(rows, weight.shape))
        self._sums = rows.sum(1)
        if (counts > self.given).any():
            self.given, self._packed = torch.maximum(counts, self.given), None
        if self._packed is not None:
            self._packed.enable(self._split(counts))

    def product(self, x: Tensor, layer: nn.Module) -> Tensor | None:
        """The layer's output by the kernel; None where the kernel cannot say it."""
        grid = self.grid
        if self.engine != "native" or grid is None or not _reaches(layer, self, x):
            return None
        conv = isinstance(layer, nn.Conv2d)
        images = x if conv else x.reshape(-1, x.shape[-1], 1, 1)
        padding: Any = layer.padding if conv else (0, 0)
        # Sums of pairs want many pixels side by side, which a convolution has.
        prepare, design = (planes, AddedTernary) if conv else (quantised, PackedTernary)
        q, finite = prepare(images, grid.step, grid.zero, padding)
        if not finite:
            return None  # torch's path shows the NaN
        weight: Any = layer.weight
        geometry = Conv2dGeometry.of(
            tuple(images.shape),
            tuple(weight.shape) if conv else (*weight.shape, 1, 1),
            stride=layer.stride if conv else 1,
            padding=padding,
            dilation=layer.dilation if conv else 1,
            groups=layer.groups if conv else 1,
        )
        if self._packed is None:
            self._groups = geometry.groups
            blocks = self._by_group()
            self._packed = design(blocks, self._split(self.given))
            self._packed.enable(self._split(self.counts))
        assert self._sums is not None
        # The integers stand for x / step + zero: what zero adds is the same everywhere.
        bias = -grid.step * grid.zero * self._sums
        if layer.bias is not None:
            bias = bias + layer.bias.detach()  # pyright: ignore
        y = self._packed.product(q, geometry, bias, grid.step, padding)
        return y if conv else y.view(*x.shape[:-1], -1)

    def _by_group(self) -> list[TernaryBlocks]:
        """The terms of each group of the convolution."""
        parts = zip(
            self.blocks.codes.chunk(self._groups, 1),
            self.blocks.scales.chunk(self._groups, 1),
            strict=True,
        )
        return [TernaryBlocks(c, s, self.blocks.columns) for c, s in parts]

    def _split(self, counts: Tensor) -> list[Tensor]:
        return list(counts.chunk(self._groups))


class TernaryLayer(nn.Module):
    """What a layer becomes: its weight a sum of ternary terms, its input rounded."""

    _elision_ternary: Terms

    def forward(self, input: Tensor) -> Tensor:
        """The layer on the rounded input."""
        terms = self._elision_ternary
        if not (self.training or input.requires_grad):
            y = terms.product(input, self)
            if y is not None:
                return y
        if terms.grid is not None:
            input = terms.grid.rounded(input)
        return super().forward(input)  # pyright: ignore


class TernaryConv2d(TernaryLayer, nn.Conv2d):
    """A convolution with ternary weights."""


class TernaryLinear(TernaryLayer, nn.Linear):
    """A linear layer with ternary weights."""


#: Ternary type of each plain layer type.
TERNARY: dict[type[nn.Module], type[TernaryLayer]] = {
    nn.Conv2d: TernaryConv2d,
    nn.Linear: TernaryLinear,
}


def _reaches(layer: nn.Module, terms: Terms, x: Tensor) -> bool:
    """Whether the kernel computes this layer on this input."""
    groups: Any = getattr(layer, "groups", 1)
    padded = getattr(layer, "padding_mode", "zeros") == "zeros" and not isinstance(
        getattr(layer, "padding", 0), str
    )
    images = x.ndim == 4 or isinstance(layer, nn.Linear)
    wide = groups == 1 or terms.blocks.codes.shape[1] // groups >= ROWS
    float32 = x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    eight = terms.grid is not None and terms.grid.bits == 8
    small = isinstance(layer, nn.Conv2d) or terms.blocks.block <= LARGEST_BLOCK
    ready = padded and images and wide and float32 and eight and small
    return ready and unavailable() is None
