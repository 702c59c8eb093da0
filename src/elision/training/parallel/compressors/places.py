"""Places of the values that are sent, as bytes."""

import torch
from torch import Tensor

__all__ = ["pack_places", "place_bits", "unpack_places"]

#: Values of a block whose places are numbers of 8 bits, and of 16.
_SMALL, _LARGE = 2**8, 2**16


def place_bits(count: int, size: int) -> int:
    """Bits of ``count`` places of a tensor of ``size`` values, as they are packed.

    The fewest of: a number of 8 bits a place and one of 16 for each block of 256; 16 bits
    a place and 32 for each block of 65,536; 32 bits a place.

    Example:
        >>> place_bits(1_000, 1_000_000)
        16512
    """
    return min(_ways(count, size).values())


def pack_places(places: Tensor, size: int) -> tuple[Tensor, ...]:
    """Places in the bits that :func:`place_bits` counts.

    Args:
        places: int64 in [0, size), rising.
        size: values of the tensor, below 2**31.

    Returns:
        Places within blocks and how many each block has, or the places alone.
    """
    ways = _ways(places.numel(), size)
    block = min(ways, key=ways.__getitem__)
    if not block:
        return (places.int(),)
    small = block == _SMALL
    counts = torch.bincount(places // block, minlength=-(-size // block))
    within = (places % block).to(torch.uint8 if small else torch.uint16)
    return within, counts.to(torch.int16 if small else torch.int32)


def unpack_places(parts: tuple[Tensor, ...]) -> Tensor:
    """The places of :func:`pack_places`, int64.

    Example:
        >>> places = torch.tensor([3, 255, 256, 999])
        >>> unpack_places(pack_places(places, 1000)).tolist()
        [3, 255, 256, 999]
    """
    if len(parts) == 1:
        return parts[0].long()
    within, counts = parts
    block = _SMALL if within.dtype == torch.uint8 else _LARGE
    first = torch.arange(counts.numel(), device=within.device) * block
    return torch.repeat_interleave(first, counts.long()) + within.long()


def _ways(count: int, size: int) -> dict[int, int]:
    """Bits by the size of a block; 0: no blocks."""
    return {
        _SMALL: 8 * count + 16 * -(-size // _SMALL),
        _LARGE: 16 * count + 32 * -(-size // _LARGE),
        0: 32 * count,
    }
