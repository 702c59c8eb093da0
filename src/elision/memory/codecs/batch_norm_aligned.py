"""Batch-norm inputs in a few bits, on a grid that the normalisation itself gives."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from elision.common.checks import integer
from elision.memory.codecs.bits import pack_codes, unpack_codes
from elision.memory.codecs.pieces import cuts, part
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import Layout
from elision.memory.saved.roles import Role, Slot

__all__ = ["BatchNormAligned"]

#: Half the width of the grid, in standard deviations (BLPA).
_REACH = 3.0
#: Subtracted from a value before its bin is computed (BLPA).
_ZERO = 1e-6


class _Grid(NamedTuple):
    """Per channel, of shape (1, C, 1, ...): ``a = x·scale + offset``, and ReLU's bin."""

    scale: torch.Tensor
    offset: torch.Tensor
    shift: torch.Tensor


@dataclass(frozen=True)
class BatchNormAligned(Codec):
    """Uniform over ±3σ, ReLU's zero on the edge of a bin (BLPA, NeurIPS 2019).

    With ``x_norm`` the normalised input, ``h = 6/2**bits`` and ``a = x_norm + β/γ``,
    whose sign is that of the batch norm's result for positive γ::

        shift = B/2 - floor((β/γ)/h)
        q = clip(floor((a - 1e-6)/h) + shift, 0, B - 1),   â = (q + 1/2 - shift)·h

    Batch norm has computed mean and deviation already, so the codec searches no range
    and stores only the codes per value. Values beyond three deviations clip.
    Where β/γ lies beyond the grid, the published shift would clip nearly everything;
    there, and where γ is zero, the grid is not aligned (own choice).

    For batch norm on the CPU in training mode; inputs of other norms are left to the
    next codec. ``Recompute(lossy=True)`` derives the next layer's input from it.

    Attributes:
        bits: bits per element (published: 4 and 8).

    Raises:
        ValueError: bits out of range.

    Example:
        >>> from torch import nn
        >>> x = torch.randn(64, 16, requires_grad=True)
        >>> node = nn.BatchNorm1d(16)(x).grad_fn
        >>> slot = Slot(node.name(), "input", Role.NORM_INPUT, node=node)
        >>> packed = BatchNormAligned(4).pack(x.detach(), slot)
        >>> packed.nbytes, x.nbytes  # half a byte an element, three numbers a channel
        (704, 4096)
    """

    bits: int = 4
    name = "batch-norm aligned"
    guarantee = Guarantee.LOSSY
    roles = frozenset({Role.NORM_INPUT})

    def __post_init__(self) -> None:
        integer("BatchNormAligned", "bits", self.bits, "[2, 8]")

    @property
    def _step(self) -> float:
        return 2 * _REACH / 2**self.bits

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Quantise; None if it is not a batch norm's or an element is not finite."""
        node = slot.node
        if slot.function != "NativeBatchNormBackward0" or not node._saved_training:
            return None
        if not floating(tensor):
            return None
        grid = self._grid(tensor, node)
        codes = tensor.new_empty(tensor.shape, dtype=torch.uint8)
        for index in cuts(tensor.shape):
            scale, offset, shift = (part(g, index) for g in grid)
            a = tensor[index].to(torch.float32) * scale + (offset - _ZERO)
            q = a.div_(self._step).floor_().add_(shift)
            codes[index] = q.clamp_(0, 2**self.bits - 1)
        payload = pack_codes(codes.view(-1), self.bits), *(g.clone() for g in grid)
        return Packed(payload, Layout.of(tensor))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The middles of the bins, as inputs of the batch norm."""
        codes, scale, offset, shift = packed.payload
        q = unpack_codes(codes, self.bits, packed.layout.numel)
        q, restored = q.view(packed.layout.shape), packed.layout.empty()
        for index in cuts(q.shape):
            a = q[index].to(torch.float32).add_(0.5 - part(shift, index))
            values = a.mul_(self._step).sub_(part(offset, index))
            restored[index] = values.div_(part(scale, index))
        return restored

    def _grid(self, tensor: torch.Tensor, node: Any) -> _Grid:
        mean, inverse = node._saved_result1, node._saved_result2
        gamma, beta = (
            getattr(function, "variable", None)
            for function, _ in node.next_functions[1:3]
        )
        ratio = torch.zeros_like(inverse)
        if gamma is not None and beta is not None:
            ratio = (beta / gamma).detach().to(inverse.dtype).nan_to_num(0, 0, 0)
        ratio = ratio.where(ratio.abs() < _REACH - self._step, 0)
        shift = 2 ** (self.bits - 1) - (ratio / self._step).floor()
        shape = (1, -1, *[1] * (tensor.dim() - 2))
        parts = inverse, ratio - mean * inverse, shift
        return _Grid(*(part.view(shape) for part in parts))
