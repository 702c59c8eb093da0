"""Seeds of random numbers that follow from a place and a step alone."""

import zlib

__all__ = ["seed_at", "stream_of"]

#: Step of a Weyl sequence of 32 bits, 2^32 divided by the golden ratio, made odd: seeds of
#: consecutive steps have little in common.
_WEYL = 0x9E37_79B9


def stream_of(place: str, seed: int = 0) -> int:
    """A number in [0, 2**32) for each place of a model and seed of a run.

    Example:
        >>> stream_of("layer1.weight") == stream_of("layer2.weight")
        False
    """
    return zlib.crc32(f"{seed} {place}".encode())


def seed_at(stream: int, step: int) -> int:
    """Seed of a step, in [0, 2**32): another one in each of 2**32 steps.

    Args:
        stream: of :func:`stream_of`.
        step: a counter.

    Example:
        >>> len({seed_at(7, step) for step in range(100)})
        100
    """
    return (stream + step * _WEYL) % 2**32
