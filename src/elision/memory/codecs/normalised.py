"""Probabilities in a few bits that still sum to one."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from elision.common.checks import integer
from elision.memory.codecs.group import GROUP, GroupQuant
from elision.memory.codecs.sparse_group import SparseGroupQuant
from elision.memory.saved.codec import Codec, Guarantee, Packed
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import Role, Slot

__all__ = ["Normalised"]

#: Functions whose result is a softmax, and whether it is its logarithm.
_SOFTMAXES = {
    "SoftmaxBackward0": False,
    "SafeSoftmaxBackward0": False,
    "LogSoftmaxBackward0": True,
}


class _Meta(NamedTuple):
    """Packing of the probabilities.

    Attributes:
        codec: by this codec.
        values: in this form, rows of one distribution each.
        shape: of the tensor with the distributions along its last axis.
        axis: along which they lie in the tensor itself.
        logarithm: whether the tensor holds logarithms.
    """

    codec: Codec
    values: Packed
    shape: tuple[int, ...]
    axis: int
    logarithm: bool


@dataclass(frozen=True)
class Normalised(Codec):
    """The result of a softmax or log-softmax: all probabilities of a row but the largest.

    The backward pass of a softmax, ``dx = p·(g - Σ g·p)``, lives on differences that
    vanish as a distribution saturates: the largest probability p₁ enters as ``1 - p₁``.
    An error of p₁ in proportion to p₁ would be many times as large, and the gradient
    error would grow with the logits. So p₁ is not stored but its place, and ::

        p̂₁ = 1 - Σ p̂ᵢ over all others,

    which are group-quantised on grids of their own, each as fine as its group is small.
    ``1 - p̂₁`` is then as accurate as they are, whatever the logits' size, and a group's
    error is in proportion to its largest probability. The backward pass of a log-softmax,
    ``dx = g - p·Σ g``, needs the same probabilities, whose logarithms are restored.
    (This project's own choice.)

    Rounding is dithered, hence unbiased; under a logarithm, which may not see a negative
    number, it is stochastic, and a p̂₁ below zero becomes zero. A row without any
    probability, masked altogether, is restored as such.

    Attributes:
        bits: bits per element, 1 to 8.
        group: elements per group.

    Raises:
        ValueError: a parameter out of its range.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> p = torch.randn(64, 64, requires_grad=True).mul(9).softmax(-1)
        >>> slot = Slot("SoftmaxBackward0", "result", Role.PROBABILITY, node=p.grad_fn)
        >>> packed = Normalised(4).pack(p.detach(), slot)
        >>> packed.nbytes, p.nbytes  # a place of two bytes for every row
        (2432, 16384)
        >>> torch.allclose(Normalised(4).unpack(packed).sum(-1), torch.ones(64))
        True
    """

    bits: int = 4
    group: int = GROUP
    guarantee = Guarantee.LOSSY
    roles = frozenset({Role.PROBABILITY, Role.LOG_PROBABILITY, Role.MULTIPLICAND})
    optional_in_graphs = True

    def __post_init__(self) -> None:
        integer("Normalised", "bits", self.bits, "[1, 8]")
        self._codecs(False)  # the parts check the group

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``"normalised 4-bit"``."""
        return f"normalised {self.bits}-bit"

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Quantise; None if it is no softmax's result, or not finite."""
        logarithm = _SOFTMAXES.get(slot.function)
        if logarithm is None or not tensor.is_floating_point() or not tensor.numel():
            return None
        axis = _axis(slot.node, tensor.dim())
        moved = tensor.movedim(axis, -1)
        rows = moved.reshape(-1, moved.shape[-1])
        probabilities = torch.empty_like(rows, dtype=torch.float32).copy_(rows)
        if logarithm:
            probabilities.exp_()
        least = probabilities.amin(1, keepdim=True)
        largest, place = probabilities.max(1, keepdim=True)
        # In its place stands a value that widens no group.
        probabilities.scatter_(1, place, least)
        place = torch.where(largest > 0, place, -1)
        plain = Slot(slot.function, slot.name, slot.role, seed=slot.seed)
        for codec in self._codecs(logarithm):
            values = codec.pack(probabilities, plain)
            if values is not None:
                break
        else:
            return None
        narrow = torch.int16 if rows.shape[1] <= 2**15 else torch.int32
        meta = _Meta(codec, values, tuple(moved.shape), axis, logarithm)
        payload = *values.payload, place.to(narrow)
        return Packed(payload, Layout.of(tensor), meta)

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The probabilities, whose rows sum to one, or their logarithms."""
        codec, values, shape, axis, logarithm = packed.meta
        rows = codec.unpack(values.holding(packed.payload[:-1]))
        place = packed.payload[-1].to(torch.int64)
        there, place = place >= 0, place.clamp(min=0)
        rows.scatter_(1, place, 0)
        others = rows.sum(1, keepdim=True)
        largest = torch.where(there, 1 - others, 0)
        if logarithm:
            rows.log_()
            largest = torch.log1p(-others.clamp(max=1))
        rows.scatter_(1, place, largest)
        restored = rows.view(shape).movedim(-1, axis)
        layout = packed.layout
        if restored.is_contiguous() and restored.stride() == layout.stride:
            return layout.view(flat(restored))
        return layout.empty().copy_(restored)

    def _codecs(self, logarithm: bool) -> tuple[Codec, ...]:
        rounding = "stochastic" if logarithm else "dithered"
        return (
            SparseGroupQuant(self.bits, rounding=rounding),
            GroupQuant(self.bits, self.group, rounding),
        )


def _axis(node: Any, dims: int) -> int:
    """Axis of the distributions, counted from the first of ``dims`` axes."""
    axis = int(node._saved_dim)
    # Nodes show a negative axis as an unsigned integer of 64 bits.
    return axis if axis < dims else (axis - 2**64) % dims
