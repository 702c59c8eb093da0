"""Randomised automatic differentiation (RAD): a random part of a layer's input."""

from dataclasses import dataclass

import torch

from elision.common.checks import number
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import Layout
from elision.memory.saved.roles import Role, Slot

__all__ = ["RadProject", "RadSample"]


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """Images as (N·C, H·W), anything else as (rows, features)."""
    kept = 2 if tensor.dim() == 4 else 1
    return tensor.flatten(-kept).flatten(0, -2).to(torch.float32)


class _Rad(Codec):
    """Base of both estimators."""

    guarantee = Guarantee.UNBIASED
    roles = frozenset({Role.LINEAR_INPUT})
    keep: float

    def __post_init__(self) -> None:
        number(type(self).__name__, "keep", self.keep, "(0, 1]")

    def _count(self, size: int) -> int:
        """Columns to keep of ``size``, rounded up."""
        return int(self.keep * size + 0.999)

    def _generator(self, seed: int, device: torch.device) -> torch.Generator:
        return torch.Generator(device).manual_seed(seed)

    def _laid(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        values, layout = rows.view(packed.layout.shape), packed.layout
        if (values.stride(), values.dtype) == (layout.stride, layout.dtype):
            return values
        return layout.empty().copy_(values)


@dataclass(frozen=True)
class RadSample(_Rad):
    """Unbiased: K columns drawn with replacement, weighted ``D/K`` (Oktay et al. 2021).

    The columns are the pixels of an image or the features of a row, the same for the
    whole batch. Only inputs of convolutions and linear layers, which enter the weight
    gradient linearly and once, may be sampled; elsewhere the gradient would be biased.

    Attributes:
        keep: share of the columns to keep, in (0, 1].

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.ones(8, 128)
        >>> packed = RadSample(0.25).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (1280, 4096)
    """

    keep: float = 0.1
    name = "RAD sample"

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the drawn columns and their numbers."""
        if not floating(tensor):
            return None
        rows = _rows(tensor)
        size = rows.shape[1]
        count = self._count(size)
        generator = self._generator(slot.seed, rows.device)
        columns = torch.randint(size, (count,), generator=generator, device=rows.device)
        drawn = (rows[:, columns] * (size / count)).to(tensor.dtype)
        return Packed((drawn, columns), Layout.of(tensor))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The weighted columns in their places, zeros elsewhere."""
        drawn, columns = packed.payload
        size = packed.layout.numel // len(drawn)
        rows = drawn.new_zeros(len(drawn), size).index_add_(1, columns, drawn)
        return self._laid(packed, rows)


@dataclass(frozen=True)
class RadProject(_Rad):
    """Unbiased: the rows times a random sign matrix M, ``E[M·Mᵀ] = I``.

    ``M`` has entries ``±1/sqrt(K)`` and is drawn again from its seed to restore
    ``x̂ = (x·M)·Mᵀ`` (Oktay et al. 2021; with further quantisation EXACT, ICLR 2022).

    Attributes:
        keep: K over the row length, in (0, 1].

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.ones(8, 128)
        >>> packed = RadProject(0.25).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (1024, 4096)
    """

    keep: float = 0.1
    name = "RAD project"

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the projected rows and the seed."""
        if not floating(tensor):
            return None
        rows = _rows(tensor)
        projected = rows @ self._signs(rows.shape[1], slot.seed, rows.device)
        return Packed((projected.to(tensor.dtype),), Layout.of(tensor), slot.seed)

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The projection of the rows onto the columns of M."""
        projected = packed.payload[0].to(torch.float32)
        size = packed.layout.numel // len(projected)
        signs = self._signs(size, packed.meta, projected.device)
        return self._laid(packed, projected @ signs.T)

    def _signs(self, size: int, seed: int, device: torch.device) -> torch.Tensor:
        count = self._count(size)
        generator = self._generator(seed, device)
        coins = torch.randint(2, (size, count), generator=generator, device=device)
        return (coins * 2 - 1).to(torch.float32) / count**0.5
