"""Overlap: buckets of gradients that travel while the backward pass goes on."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "BUCKET_CAP",
    "FIRST_BUCKET",
    "Bucket",
    "Sent",
    "bucketed",
    "competing",
    "exposed",
    "grouped",
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


def grouped(gradients: Sequence[Bucket], cap: float | None = None) -> list[slice]:
    """The gradients of each bucket, as places in their order; see :func:`bucketed`.

    Example:
        >>> grouped([Bucket(3, t) for t in (1, 2, 3)], cap=5)
        [slice(0, 2, None), slice(2, 3, None)]
    """
    found: list[slice] = []
    first, size = 0, 0.0
    for place, gradient in enumerate(gradients):
        size += gradient.size
        if size >= (cap or (BUCKET_CAP if found else FIRST_BUCKET)):
            found.append(slice(first, place + 1))
            first, size = place + 1, 0.0
    if first < len(gradients):
        found.append(slice(first, len(gradients)))
    return found


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
        [6, 6]
    """
    found: list[Bucket] = []
    for places in grouped(gradients, cap):
        own = gradients[places]
        ready = max(each.ready for each in gradients[: places.stop])
        found.append(Bucket(sum(each.size for each in own), ready))
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


def competing(
    ready: Sequence[float],
    seconds: Sequence[float],
    shares: Sequence[float],
    backward: float,
) -> tuple[list[Sent], float]:
    """Times of buckets that take computing from the backward pass while they travel.

    As :func:`sent`, but the backward pass goes on at ``1 - share`` of its speed while a
    bucket is on its way, so that later buckets are ready later.

    Args:
        ready: seconds of undisturbed computing after which each may start, in order.
        seconds: that each takes.
        shares: of the computing that stands still meanwhile, in [0, 1].
        backward: seconds of the undisturbed backward pass.

    Returns:
        The buckets, and when the backward pass ends.

    Example:
        >>> competing([1.0, 2.0], [1.0, 1.0], [1.0, 1.0], backward=2.0)[1]
        3.0
    """
    found: list[Sent] = []
    times, works = [0.0], [0.0]  # on the clock, and computed until then

    def when(work: float) -> float:
        """The first moment at which so much is computed, nothing more being sent."""
        after = bisect_left(works, work)
        if after == len(works):
            return times[-1] + work - works[-1]
        if not after:
            return times[0]
        (t, w), (u, v) = ((times[i], works[i]) for i in (after - 1, after))
        return t + (work - w) / (v - w) * (u - t)

    for work, takes, share in zip(ready, seconds, shares, strict=True):
        is_ready = when(work)
        start = max(is_ready, times[-1])
        # That of a bucket that did not wait is its own to the last bit: nothing may be
        # computed while it travels, and then the clock jumps at this very number.
        works += [work if is_ready > times[-1] else works[-1]]
        works += [works[-1] + (1 - share) * takes]
        times += [start, start + takes]
        found.append(Sent(is_ready, start, start + takes))
    return found, when(backward)


def exposed(times: Sequence[Sent], backward: float) -> float:
    """Seconds that the last bucket ends after the backward pass.

    Example:
        >>> exposed(sent([1.0, 2.0], [3.0, 1.0]), backward=2.0)
        3.0
    """
    return max(times[-1].end - backward, 0.0) if times else 0.0
