"""Tag of a tensor's content: whether memory still holds what it held.

A version counter misses what is written through ``.data``, numpy or another counter of
the same memory, so whatever stands for memory is verified by its content as well. The
tag reads every byte once. Each word is mixed with its position, by a bijection for
every position, and the sums of two such mixtures make 64 bits: a change of one word is
always noticed, any other but for one in 2**64 by chance.
"""

import numpy as np
import torch

from elision.common.machine_code import compiled_once
from elision.memory.saved.layout import flat

__all__ = ["content_tag"]

_U32 = np.uint32
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}
#: Words that are mixed at once where there is no kernel.
_PIECE = 2**20


def content_tag(tensor: torch.Tensor) -> int:
    """Tag of a dense tensor's bytes in memory order."""
    words = _words(flat(tensor))
    if words.device.type != "cpu":
        return mixed(words)
    return int(_mix(words.numpy().view(_UNSIGNED[words.element_size()])))


def _words(values: torch.Tensor) -> torch.Tensor:
    """The bytes of a flat tensor as integers of at most 32 bits."""
    return values.view(_WORDS.get(values.element_size(), torch.int32))


@compiled_once(nogil=True)
def _mix(words):
    a, b = _U32(0), _U32(0)
    for i in range(words.size):
        h = _U32(_U32(words[i]) ^ _U32(_U32(i) * _U32(0x9E3779B1)))
        h = _U32(h * _U32(0x7FEB352D))
        h = _U32(h ^ _U32(h >> _U32(15)))
        a = _U32(a + h)
        b = _U32(b + _U32(h * _U32(0x846CA68B) ^ h >> _U32(16)))
    return (np.uint64(a) << np.uint64(32)) | np.uint64(b)


def mixed(words: torch.Tensor) -> int:
    """The same tag in plain torch, for other devices, and the kernel's oracle."""
    a = b = 0
    limit = 2 ** (8 * words.element_size()) - 1
    for first in range(0, words.numel(), _PIECE):
        piece = words[first : first + _PIECE].to(torch.int64) & limit
        places = torch.arange(first, first + len(piece), device=words.device)
        h = piece ^ (places * 0x9E3779B1 & 0xFFFFFFFF)
        h = h * 0x7FEB352D & 0xFFFFFFFF
        h = h ^ (h >> 15)
        a += int(h.sum())
        b += int(((h * 0x846CA68B & 0xFFFFFFFF) ^ (h >> 16)).sum())
    return (a & 0xFFFFFFFF) << 32 | b & 0xFFFFFFFF
