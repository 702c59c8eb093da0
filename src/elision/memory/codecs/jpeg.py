"""JPEG-ACT: 8x8 blocks of fixed-point planes, cosine transformed and quantised."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

from elision.common.checks import number, one_of
from elision.memory.codecs.bits import keep_positive, pack_bits, unpack_bits
from elision.memory.codecs.compaction import compact, count_nonzero, spread
from elision.memory.codecs.cosine import cosine_transform
from elision.memory.codecs.fixed_point import channel_maxima
from elision.memory.codecs.on_gpu import usable
from elision.memory.codecs.pieces import cuts, part
from elision.memory.saved.checksum import DamagedError
from elision.memory.saved.codec import Codec, Guarantee, Packed, floating
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import SMOOTH_ROLES, Slot

__all__ = ["Jpeg", "search_table"]


def _blocks(planes: torch.Tensor) -> torch.Tensor:
    """(P, H, W) -> (P·H/8·W/8, 8, 8), padded by repeating the last row and column."""
    height, width = planes.shape[1:]
    padding = (0, -width % 8, 0, -height % 8)
    padded = F.pad(planes[:, None], padding, mode="replicate")[:, 0]
    p, h, w = padded.shape
    return padded.view(p, h // 8, 8, w // 8, 8).transpose(2, 3).reshape(-1, 8, 8)


def _planes(blocks: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """The inverse of :func:`_blocks`, without the padding; ``p`` may be -1."""
    p, height, width = shape
    h, w = -(-height // 8), -(-width // 8)
    planes = blocks.view(p, h, w, 8, 8).transpose(2, 3).reshape(-1, 8 * h, 8 * w)
    return planes[:, :height, :width]


def _block_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of the coefficients of images, (N, C, H/8·W/8, 64)."""
    n, c, h, w = shape
    return n, c, -(-h // 8) * -(-w // 8), 64


@dataclass(frozen=True)
class Jpeg(Codec):
    """Images in 8 bits per channel, then ``ẑ = clip(round(D·q·Dᵀ / T), -127, 127)``.

    (Evans, Liu, Aamodt, ISCA 2020.) The default is a flat table: at equal ratio it
    beats the table made for human vision. Only 4-D tensors of at least 8x8; anything
    else is left to the next codec. The result of a ReLU keeps a 1-bit mask, by which
    zeros are restored as zeros and positives as positives.

    Attributes:
        table: the quantisation table ``T``, one number for a flat one or 64 in rows,
            vertical frequency first.
        scale: ``S`` of the fixed-point step; peaks above ``max|x|/S`` clip.
        coding: ``"zero-value"`` (a bit per coefficient and the non-zero bytes, a
            parallel format) or ``"deflate"`` (Huffman coded on the CPU: smaller,
            slower).

    Raises:
        ValueError: a parameter out of its range.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.linspace(-1, 1, 1024).view(1, 4, 16, 16)
        >>> packed = Jpeg(8).pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (212, 4096)
    """

    table: float | tuple[float, ...] = 8.0
    scale: float = 1.0
    coding: str = "zero-value"
    name = "jpeg"
    guarantee = Guarantee.LOSSY
    roles = SMOOTH_ROLES

    def __post_init__(self) -> None:
        table = self.table if isinstance(self.table, tuple) else (self.table,)
        if len(table) not in (1, 64):
            raise ValueError(f"Jpeg(table={self.table!r}): must be one number or 64")
        for entry in table:
            number("Jpeg", "table", entry, "> 0")
        number("Jpeg", "scale", self.scale, ">= 1")
        one_of("Jpeg", "coding", self.coding, ("zero-value", "deflate"))

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Transform and quantise; None if not finite or not images."""
        if tensor.dim() != 4 or min(tensor.shape[2:]) < 8 or not floating(tensor):
            return None
        step = channel_maxima(tensor) / (127 * self.scale)
        table = self._table(tensor.device)
        if usable(tensor):
            coefficients = _kernels().transformed(
                *(tensor, step.view(-1), cosine_transform().to(tensor.device), table)
            )
        else:
            coefficients = self._coefficients(tensor, step, table)
        payload = [step, *self._encode(coefficients.view(-1))]
        if slot.nonnegative:
            payload.append(pack_bits(flat(tensor) > 0))
        return Packed(tuple(payload), Layout.of(tensor), slot.nonnegative)

    def _coefficients(
        self, tensor: torch.Tensor, step: torch.Tensor, table: torch.Tensor
    ) -> torch.Tensor:
        """The quantised coefficients, int8, ``(N, C, blocks, 64)``."""
        coefficients = tensor.new_empty(_block_shape(tensor.shape), dtype=torch.int8)
        for index in cuts(tensor.shape):
            piece = _transform(tensor[index], part(step, index)).div_(table)
            target = coefficients[index]
            target.copy_(piece.round_().clamp_(-127, 127).view(target.shape))
        return coefficients

    def unpack(self, packed: Packed) -> torch.Tensor:
        """The inverse transform of the quantised coefficients."""
        n, c, h, w = packed.layout.shape
        step, *payload = packed.payload
        masked = payload.pop() if packed.meta else None
        shape = _block_shape((n, c, h, w))
        coefficients = self._decode(payload, torch.Size(shape).numel()).view(shape)
        coefficients = coefficients.to(step.device)  # deflated ones lie on the CPU
        dct, table = cosine_transform().to(step.device), self._table(step.device)
        restored = packed.layout.empty()
        if usable(step):
            _kernels().restored(coefficients, step.view(-1), dct, table, restored)
        else:
            self._restore(coefficients, step, dct, table, restored)
        if masked is not None:
            keep_positive(flat(restored), masked)
        return restored

    def _restore(
        self,
        coefficients: torch.Tensor,
        step: torch.Tensor,
        dct: torch.Tensor,
        table: torch.Tensor,
        restored: torch.Tensor,
    ) -> None:
        """The inverse transform, into ``restored``."""
        height, width = restored.shape[2:]
        for index in cuts(restored.shape):
            target = restored[index]
            piece = coefficients[index].reshape(-1, 8, 8).to(torch.float32) * table
            planes = _planes(dct.T @ piece @ dct, (-1, height, width))
            target.copy_(planes.view(target.shape) * part(step, index))

    def keeps_sign(self, packed: Packed) -> bool:
        """True if a mask is kept."""
        return packed.meta

    def unpack_sign(self, packed: Packed) -> torch.Tensor:
        """The mask alone."""
        mask = unpack_bits(packed.payload[-1], packed.layout.numel)
        return packed.layout.view(mask.to(packed.layout.dtype))

    def _table(self, device: torch.device) -> torch.Tensor:
        table = self.table if isinstance(self.table, tuple) else (self.table,) * 64
        return torch.tensor(table, dtype=torch.float32, device=device).view(8, 8)

    def _encode(self, coefficients: torch.Tensor) -> list[torch.Tensor]:
        if self.coding == "zero-value":
            return [*compact(coefficients, count_nonzero(coefficients))]
        # One frequency after the other: alike coefficients stand together.
        ordered = coefficients.view(-1, 64).T.contiguous().cpu().numpy()
        packed = np.frombuffer(zlib.compress(ordered.data, 1), np.uint8)
        stored = coefficients.new_empty(len(packed), dtype=torch.uint8, device="cpu")
        stored.numpy()[:] = packed
        return [stored]

    def _decode(self, payload: list[torch.Tensor], count: int) -> torch.Tensor:
        if self.coding == "zero-value":
            return spread(payload[0], payload[1], count)
        try:
            raw = bytearray(zlib.decompress(payload[0].numpy().data))
        except zlib.error as error:
            raise _damaged(str(error)) from None
        if len(raw) != count:
            raise _damaged(f"{len(raw)} coefficients instead of {count}")
        ordered = torch.frombuffer(raw, dtype=torch.int8).view(64, -1)
        return ordered.T.contiguous().view(-1)


def _kernels() -> ModuleType:
    from elision.memory.codecs.on_gpu import jpeg

    return jpeg


def _damaged(why: str) -> DamagedError:
    return DamagedError(
        f"a saved tensor's deflated bytes changed since the forward pass ({why}); repeat "
        "the step"
    )


def _transform(tensor: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The cosine transform of the fixed-point planes, (blocks, 8, 8)."""
    q = (tensor.to(torch.float32) / step.where(step > 0, 1)).round_().clamp_(-127, 127)
    dct = cosine_transform().to(tensor.device)
    return dct @ _blocks(q.contiguous().flatten(0, 1)) @ dct.T


def search_table(
    samples: Iterable[torch.Tensor], bits_weight: float = 20.0
) -> tuple[float, ...]:
    """A table of powers of two that trades rate for distortion on sample activations.

    The transform is orthonormal, so both the squared error and the entropy of the
    coefficients are sums over the 64 frequencies, and each entry is found by itself:
    the power of two that minimises ``error + bits_weight · entropy``. (JPEG-ACT
    searches by gradient descent over all entries; powers of two are its SH variant.)

    Args:
        samples: activations, (N, C, H, W) each.
        bits_weight: squared fixed-point steps that a bit per coefficient is worth (own
            choice: 20).

    Returns:
        64 numbers in rows, for :class:`Jpeg`.
    """
    transformed = torch.cat(
        [_transform(s, channel_maxima(s) / 127).view(-1, 64) for s in samples]
    )
    table = []
    for values in transformed.T:
        costs = {}
        for power in range(8):
            entry = float(2**power)
            codes = (values / entry).round()
            error = float((codes * entry - values).square().mean())
            _, counts = codes.unique(return_counts=True)
            share = counts / counts.sum()
            entropy = float(-(share * share.log2()).sum())
            costs[entry] = error + bits_weight * entropy
        table.append(min(costs, key=costs.__getitem__))
    return tuple(table)
