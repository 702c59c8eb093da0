"""Packing small codes: eight codes of b bits fill b bytes.

Every format of this package below eight bits is this one: codes are taken eight at a
time, code ``i`` of the eight occupies bits ``b·i .. b·i + b - 1`` of a little-endian
word, and the word's ``b`` bytes are stored. One bit per code is numpy's ``packbits`` in
little bit order, which is what the CPU uses there.
"""

import numpy as np
import torch

from elision.memory.codecs.on_gpu import usable

__all__ = [
    "keep_positive",
    "pack_bits",
    "pack_codes",
    "packed_bytes",
    "unpack_bits",
    "unpack_codes",
]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits occupy."""
    return -(-count // 8) * bits


def pack_codes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes below ``2**bits``.

    Args:
        codes: uint8, shape ``(count,)``.
        bits: 1 to 8.

    Returns:
        uint8, shape ``(packed_bytes(count, bits),)``.
    """
    if bits == 8:
        padded = torch.nn.functional.pad(codes, (0, -codes.numel() % 8))
        return padded.contiguous()
    lanes = torch.nn.functional.pad(codes, (0, -codes.numel() % 8)).view(-1, 8)
    if 8 % bits == 0:  # no code crosses a byte
        whole = lanes.view(-1, 8 // bits)
        packed = whole[:, 0].clone()
        for lane in range(1, 8 // bits):
            packed |= whole[:, lane] << (bits * lane)
        return packed
    word = torch.zeros(lanes.shape[0], dtype=torch.int64, device=codes.device)
    for lane in range(8):
        word |= lanes[:, lane].to(torch.int64) << (bits * lane)
    packed = torch.empty(lanes.shape[0], bits, dtype=torch.uint8, device=codes.device)
    for byte in range(bits):
        packed[:, byte] = ((word >> (8 * byte)) & 255).to(torch.uint8)
    return packed.view(-1)


def unpack_codes(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The ``count`` codes that :func:`pack_codes` packed, as uint8."""
    if bits == 8:
        return packed[:count]
    if 8 % bits == 0:
        shifts = range(0, 8, bits)
        lanes = [(packed >> shift) & (2**bits - 1) for shift in shifts]
        return torch.stack(lanes, 1).view(-1)[:count]
    rows = packed.view(-1, bits)
    word = torch.zeros(rows.shape[0], dtype=torch.int64, device=packed.device)
    for byte in range(bits):
        word |= rows[:, byte].to(torch.int64) << (8 * byte)
    lanes = torch.empty(rows.shape[0], 8, dtype=torch.uint8, device=packed.device)
    for lane in range(8):
        lanes[:, lane] = ((word >> (bits * lane)) & (2**bits - 1)).to(torch.uint8)
    return lanes.view(-1)[:count]


def pack_bits(mask: torch.Tensor) -> torch.Tensor:
    """Pack a boolean tensor of shape ``(count,)`` into ``ceil(count / 8)`` bytes."""
    if usable(mask):
        from elision.memory.codecs.on_gpu import masks

        return masks.pack(mask.contiguous())
    if mask.device.type != "cpu":
        return pack_codes(mask.to(torch.uint8), 1)
    packed = mask.new_empty(packed_bytes(mask.numel(), 1), dtype=torch.uint8)
    packed.numpy()[:] = np.packbits(mask.numpy(), bitorder="little")
    return packed


def unpack_bits(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The boolean tensor of shape ``(count,)`` that :func:`pack_bits` packed."""
    if usable(packed):
        from elision.memory.codecs.on_gpu import masks

        return masks.unpack(packed, count)
    if packed.device.type != "cpu":
        return unpack_codes(packed, 1, count).to(torch.bool)
    bits = np.unpackbits(packed.numpy(), count=count, bitorder="little")
    return torch.from_numpy(bits.view(np.bool_))


def keep_positive(values: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    """Flat ``values``, in place: positive where a bit is set, else zero.

    Args:
        values: floating, ``(count,)``: the result of a ReLU, approximately.
        packed: the mask of those that are not zero, of :func:`pack_bits`.
    """
    zero = unpack_bits(packed, values.numel()).logical_not_()
    tiny = torch.finfo(values.dtype).tiny
    return values.clamp_(min=tiny).masked_fill_(zero, 0)
