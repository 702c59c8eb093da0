"""Explained compression: for each bucket, whether a compressor gains anything on a link."""

import math
from dataclasses import dataclass

from elision.common.columns import column
from elision.training.parallel.scaling.model import ScalingModel

__all__ = ["BucketRow", "explained"]


@dataclass(frozen=True)
class BucketRow:
    """A bucket, as it is and compressed.

    Attributes:
        bucket: its number, in the order in which buckets are sent.
        size: bytes of its gradients.
        left: seconds of backward pass after it is ready, behind which it can hide.
        dense: seconds on the link as it is.
        coded: seconds of the compressed message on the link.
        coding: seconds to make that message and to read what comes back.
        break_even: bytes per second below which the compressed bucket is through sooner.
        verdict: whether it gains anything on this link.

    Example:
        >>> BucketRow(0, 4e6, 0.0, 4e-3, 1e-3, 1e-3, 1.5e9, "pays").break_even
        1500000000.0
    """

    bucket: int = column("bucket")
    size: float = column("MB", ".3f", scale=1e-6)
    left: float = column("backward left, ms", ".3g", scale=1e3)
    dense: float = column("on the link, ms", ".3g", scale=1e3)
    coded: float = column("compressed, ms", ".3g", scale=1e3)
    coding: float = column("compress + decompress, ms", ".3g", scale=1e3)
    break_even: float = column("break-even, Gbit/s", ".3g", scale=8e-9)
    verdict: str = column("on this link")


def explained(model: ScalingModel, ranks: int) -> list[BucketRow]:
    """The buckets of a step under the model's compression, and without.

    A bucket whose plain transfer, after those before it, ends within the backward pass
    costs nothing, and compressing it gains nothing. Of any other, compression pays where
    making, sending and reading the message takes less time than the plain transfer, which
    is so below the break-even bandwidth.

    Args:
        model: with a compression.
        ranks: two or more.

    Raises:
        ValueError: the model has no compression, or there is one rank.

    Example:
        >>> from elision.training.parallel.scaling import Compression, Link, StepCosts
        >>> from elision.training.parallel.scaling import scaling_model
        >>> from elision.training.parallel.scaling.overlap import Bucket
        >>> costs = StepCosts((0.0, 0.001), (0.0, 0.002), 0.0, (Bucket(4e6, 1.0),))
        >>> for speed in ("1Gbit", "100Gbit"):
        ...     model = scaling_model(
        ...         costs, Link.parse(speed), batch=8, compression=Compression(8, 1e-9)
        ...     )
        ...     print(explained(model, 2)[0].verdict)
        pays
        does not pay: the link is faster than the break-even
    """
    if ranks < 2:
        raise ValueError(f"explained: {ranks} rank(s) send nothing; give two or more")
    bandwidths = model.break_even(ranks)
    backward = model.backward_seconds(ranks)
    plain = model.uncompressed
    rows = []
    for number, (bare, way, own, bandwidth) in enumerate(
        zip(
            plain.buckets(ranks),
            plain.timeline(ranks),
            model.buckets(ranks),
            bandwidths,
            strict=True,
        )
    ):
        if way.end <= backward:
            verdict = "does not pay: hidden as it is"
        elif own.on_link + own.coding < bare.on_link:
            verdict = "pays"
        else:
            verdict = "does not pay: the link is faster than the break-even"
        rows.append(
            BucketRow(
                number,
                bare.size,
                max(backward - bare.ready, 0.0),
                bare.on_link,
                own.on_link,
                own.coding,
                bandwidth,
                verdict,
            )
        )
    return rows


def speed(bandwidth: float) -> str:
    """A bandwidth of bytes per second as people read it.

    Example:
        >>> speed(1.25e9), speed(math.inf)
        ('10 Gbit', 'any speed')
    """
    return "any speed" if math.isinf(bandwidth) else f"{bandwidth * 8e-9:.3g} Gbit"
