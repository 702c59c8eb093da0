"""Taking the zeros out of a tensor: a bit per element, and what is not zero."""

import numba
import numpy as np
import torch

from elision.memory.bits import pack_bits, packed_bytes, unpack_bits

__all__ = ["compact", "spread"]


def compact(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a flat tensor is not zero, as packed bits, and what stands there.

    What stands there may be a part of something larger, which is not meant to be kept.
    """
    if values.device.type != "cpu" or values.dtype is not torch.float32:
        mask = values != 0
        return pack_bits(mask), values[mask]
    bits = torch.empty(packed_bytes(values.numel(), 1), dtype=torch.uint8)
    kept = np.empty(values.numel() + 1, np.float32)
    count = _compact(values.numpy(), bits.numpy(), kept)
    return bits, torch.from_numpy(kept[:count])


def spread(bits: torch.Tensor, kept: torch.Tensor, count: int) -> torch.Tensor:
    """The flat tensor of ``count`` elements that :func:`compact` took apart."""
    if kept.device.type != "cpu" or kept.dtype is not torch.float32:
        values = torch.zeros(count, dtype=kept.dtype, device=kept.device)
        return values.masked_scatter_(unpack_bits(bits, count), kept)
    values = torch.empty(count)
    _spread(bits.numpy(), np.append(np.float32(0), kept.numpy()), values.numpy())
    return values


# No element needs a branch, whose outcome could not be foreseen: what is dropped is
# overwritten by the next, and what is zero is read from the first place.


@numba.njit(nogil=True, cache=True)
def _compact(values, bits, kept):
    count = 0
    for byte in range(bits.size):
        word = 0
        for i in range(8 * byte, min(8 * byte + 8, values.size)):
            there = int(values[i] != 0)
            kept[count] = values[i]
            count += there
            word |= there << (i & 7)
        bits[byte] = word
    return count


@numba.njit(nogil=True, cache=True)
def _spread(bits, zero_and_kept, values):
    count = 0
    for byte in range(bits.size):
        word = int(bits[byte])
        for i in range(8 * byte, min(8 * byte + 8, values.size)):
            there = (word >> (i & 7)) & 1
            count += there
            values[i] = zero_and_kept[count * there]
