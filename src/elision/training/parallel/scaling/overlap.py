"""Overlap: buckets of gradients that travel while the backward pass goes on."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "BUCKET_CAP",
    "FIRST_BUCKET",
    "Bucket",
    "Sent",
    "bucketed",
    "exposed",
    "sent",
]

#: Bytes at which ``DistributedDataParallel`` closes its first bucket, and the others.
FIRST_BUCKET, BUCKET_CAP = 2**20, 25 * 2**20


class Bucket(NamedTuple):
    """Gradients that travel together.

    Attributes:
        size: bytes of the gradients.
        ready: seconds from the begin of the backward pass to the last of them.

    Example:
        >>> Bucket(size=4, ready=0.5).ready
        0.5
    """

    size: float
    ready: float


class Sent(NamedTuple):
    """A bucket's way over the link, in seconds from the begin of the backward pass.

    Example:
        >>> Sent(ready=1.0, start=2.0, end=5.0).end
        5.0
    """

    ready: float
    start: float
    end: float


def bucketed(gradients: Sequence[Bucket], cap: float | None = None) -> list[Bucket]:
    """Buckets of gradients in the order in which these are ready.

    As ``DistributedDataParallel`` fills them from its second step on: a bucket closes
    with the gradient that brings it to the cap.

    Args:
        gradients: size and time of each, in order.
        cap: bytes at which a bucket closes; None: torch's default, which closes the
            first bucket at :data:`FIRST_BUCKET` and the others at :data:`BUCKET_CAP`.

    Example:
        >>> [b.size for b in bucketed([Bucket(3, t) for t in (1, 2, 3, 4)], cap=5)]
        [6.0, 6.0]
    """
    found: list[Bucket] = []
    size = ready = 0.0
    for gradient in gradients:
        size, ready = size + gradient.size, max(ready, gradient.ready)
        if size >= (cap or (BUCKET_CAP if found else FIRST_BUCKET)):
            found.append(Bucket(size, ready))
            size = 0.0
    if size:
        found.append(Bucket(size, ready))
    return found


def sent(ready: Sequence[float], seconds: Sequence[float]) -> list[Sent]:
    """Times of buckets that travel one after the other, in their order.

    Args:
        ready: seconds after which each may start.
        seconds: that each takes.

    Example:
        >>> sent([1.0, 2.0], [3.0, 1.0])[1]
        Sent(ready=2.0, start=4.0, end=5.0)
    """
    found: list[Sent] = []
    free = 0.0
    for at, takes in zip(ready, seconds, strict=True):
        start = max(at, free)
        free = start + takes
        found.append(Sent(at, start, free))
    return found


def exposed(times: Sequence[Sent], backward: float) -> float:
    """Seconds that the last bucket ends after the backward pass.

    Example:
        >>> exposed(sent([1.0, 2.0], [3.0, 1.0]), backward=2.0)
        3.0
    """
    return max(times[-1].end - backward, 0.0) if times else 0.0
