"""Digests of bytes, by which a run knows again what it was made of."""

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

__all__ = ["digest", "state_bytes"]


def digest(parts: Iterable[bytes]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of some bytes, one part after another.

    Example:
        >>> digest([b"ab", b"c"]) == digest([b"abc"])
        True
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]


def state_bytes(model: nn.Module) -> Iterator[bytes]:
    """Names, shapes and values of a network's parameters and buffers, for a digest.

    Example:
        >>> one, other = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> digest(state_bytes(one)) == digest(state_bytes(other))
        False
        >>> _ = other.load_state_dict(one.state_dict())
        >>> digest(state_bytes(one)) == digest(state_bytes(other))
        True
    """
    for name, value in model.state_dict().items():
        yield repr((name, str(value.dtype), tuple(value.shape))).encode()
        flat = value.detach().cpu().contiguous().flatten()
        yield flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
