"""Compaction of a tensor with zeros: a bit mask and the non-zero values."""

import numpy as np
import torch

from elision.common.machine_code import compiled_once
from elision.memory.codecs.bits import pack_bits, packed_bytes, unpack_bits
from elision.memory.codecs.on_gpu import usable
from elision.memory.codecs.pieces import spans
from elision.memory.saved.checksum import DamagedError

__all__ = ["compact", "count_nonzero", "spread"]


def count_nonzero(values: torch.Tensor) -> int:
    """Number of non-zero elements of a flat tensor."""
    if values.device.type != "cpu" or values.dtype is not torch.float32:
        return int(torch.count_nonzero(values))
    return _count(values.numpy())


def compact(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bit mask of a flat tensor's non-zero elements, and their values.

    ``count`` is the result of :func:`count_nonzero`.
    """
    if usable(values):
        from elision.memory.codecs.on_gpu import compaction

        return compaction.compact(values)
    if values.device.type != "cpu" or values.dtype is not torch.float32:
        mask, kept = values != 0, values.new_empty(count)
        at = 0
        for span in spans(values.numel()):
            found = values[span][mask[span]]
            kept[at : at + found.numel()] = found
            at += found.numel()
        return pack_bits(mask), kept
    bits = values.new_empty(packed_bytes(values.numel(), 1), dtype=torch.uint8)
    kept = values.new_empty(count + 1)
    _compact(values.numpy(), bits.numpy(), kept.numpy())
    return bits, kept[:count]


def spread(bits: torch.Tensor, kept: torch.Tensor, count: int) -> torch.Tensor:
    """The flat tensor of ``count`` elements that :func:`compact` took apart.

    Raises:
        DamagedError: the mask has not as many bits set as there are values.
    """
    if usable(kept):
        from elision.memory.codecs.on_gpu import compaction

        ends = compaction.ends(bits, count)
        _check_count(int(ends[-1]), kept)
        return compaction.spread(bits, ends, kept, count)
    if kept.device.type != "cpu" or kept.dtype is not torch.float32:
        mask = unpack_bits(bits, count)
        _check_count(int(mask.count_nonzero()), kept)
        values = torch.zeros(count, dtype=kept.dtype, device=kept.device)
        return values.masked_scatter_(mask, kept)
    values = kept.new_empty(count)
    _check_count(_spread(bits.numpy(), kept.numpy(), values.numpy()), kept)
    return values


def _check_count(found: int, kept: torch.Tensor) -> None:
    if found != kept.numel():
        raise DamagedError(
            f"a saved tensor's mask names {found} values that are not zero, and "
            f"{kept.numel()} were packed: its packed bytes changed since the forward pass; "
            "repeat the step"
        )


# The loops over whole bytes do not branch on a bit, which would be unpredictable: every
# value is written, a dropped one overwritten by the next; zeros are read in vain.


@compiled_once(nogil=True)
def _count(values):
    count = 0
    for i in range(values.size):
        count += int(values[i] != 0)
    return count


@compiled_once(nogil=True)
def _compact(values, bits, kept):
    count, whole = 0, values.size // 8
    for byte in range(whole):
        eight = values[8 * byte : 8 * byte + 8]
        word = 0
        for i in range(8):
            there = int(eight[i] != 0)
            kept[count] = eight[i]
            count += there
            word |= there << i
        bits[byte] = word
    for i in range(8 * whole, values.size):
        there = int(values[i] != 0)
        kept[count] = values[i]
        count += there
        bits[whole] = (bits[whole] if i > 8 * whole else 0) | (there << (i & 7))


@compiled_once(nogil=True)
def _spread(bits, kept, values):
    count = byte = 0
    while byte < values.size // 8 and count + 8 <= kept.size:
        word = int(bits[byte])
        for i in range(8):
            there = (word >> i) & 1
            value = kept[count]
            values[8 * byte + i] = value if there else np.float32(0)
            count += there
        byte += 1
    for i in range(8 * byte, values.size):  # nothing may be left to be read in vain
        values[i] = 0
        if (bits[i >> 3] >> (i & 7)) & 1:
            if count < kept.size:  # a damaged mask asks for more than there are
                values[i] = kept[count]
            count += 1
    return count
