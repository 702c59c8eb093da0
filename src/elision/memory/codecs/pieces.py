"""Work in pieces, so that a codec's own results on the way take little memory.

A layer's peak is the tensor that is being packed or restored and what the codec needs
beside it. In pieces of a fixed size the latter is small, whatever the tensor's.
"""

from collections.abc import Iterator, Sequence

import torch

__all__ = ["Index", "cuts", "part", "spans"]

#: Elements of a piece (own choice: half a MiB of float32).
_PIECE = 2**17

Index = tuple[slice, ...]


def spans(count: int, size: int = 1, threads: int = 1) -> Iterator[slice]:
    """Slices that cover ``count`` items of ``size`` elements, a piece for each thread."""
    step = max(1, threads * _PIECE // max(size, 1))
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def cuts(shape: Sequence[int], axes: int = 2) -> Iterator[Index]:
    """Indices of parts that cover a tensor, cut along its first ``axes`` axes only."""
    size = torch.Size(shape[1:]).numel()
    if axes < 1 or not len(shape):
        yield ()
        return
    for span in spans(shape[0], size):
        if axes == 1 or size <= _PIECE or len(shape) == 1:
            yield (span,)
        else:
            yield from ((span, *rest) for rest in cuts(shape[1:], axes - 1))


def part(tensor: torch.Tensor, index: Index) -> torch.Tensor:
    """The part of a tensor that is broadcast over the whole, at the same index."""
    return tensor[
        tuple(
            span if tensor.shape[axis] > 1 else slice(None)
            for axis, span in enumerate(index)
        )
    ]
