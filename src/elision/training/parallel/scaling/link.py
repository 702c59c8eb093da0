"""Link: latency and bandwidth between ranks, and their fit to measured collectives."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elision.common.checks import number

__all__ = ["Link", "fit_link", "measured_curve"]

#: Bytes of a unit, by its name in lower case; a bit is an eighth.
_UNITS = {
    f"{prefix}{unit}": factor * size
    for prefix, factor in (("k", 1e3), ("m", 1e6), ("g", 1e9))
    for unit, size in (("bit", 1 / 8), ("b", 1.0))
}


@dataclass(frozen=True)
class Link:
    """What carries messages between ranks: ``seconds = latency + bytes / bandwidth``.

    Attributes:
        bandwidth: bytes per second that a rank sends, and receives at the same time.
        latency: seconds of an empty message.
        curve: (bytes, seconds) of messages that were measured. Where it is given, a message
            takes what the straight lines between them say; a shorter one than all as
            long as the first, a longer one than all goes on at the rate of the last line.
            :func:`measured_curve` makes it.

    Raises:
        ValueError: a bandwidth that is not positive, a negative latency, or a curve of
            fewer than two messages or whose bytes or seconds fall.

    Example:
        >>> Link(bandwidth=1e9, latency=1e-5).seconds(1e6)
        0.00101
    """

    bandwidth: float = math.inf
    latency: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        number("Link", "bandwidth", self.bandwidth, "(0, inf]")
        number("Link", "latency", self.latency, ">= 0")
        if self.curve:
            sizes, seconds = map(list, zip(*self.curve, strict=True))
            rises = sizes == sorted(set(sizes)) and seconds == sorted(seconds)
            if len(sizes) < 2 or not rises or sizes[0] < 0 or seconds[0] < 0:
                raise ValueError(
                    f"Link(curve={self.curve}): give (bytes, seconds) of two messages or "
                    "more, bytes in rising order, seconds that do not fall"
                )

    @classmethod
    def parse(cls, text: str, latency: float = 0.0) -> "Link":
        """A link from its speed in bits or bytes per second.

        Args:
            text: a number and ``kbit``, ``Mbit``, ``Gbit``, ``kB``, ``MB`` or ``GB``,
                ``/s`` or not.
            latency: seconds of an empty message.

        Raises:
            ValueError: not such a text.

        Example:
            >>> Link.parse("10Gbit").bandwidth, Link.parse("0.85 GB/s").bandwidth
            (1250000000.0, 850000000.0)
        """
        found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) *([a-z]+)(?:/s)?", text.lower())
        try:
            if found is not None and found[2] in _UNITS:
                return cls(float(found[1]) * _UNITS[found[2]], latency)
        except ValueError:
            pass  # a number that is none, or not above zero
        raise ValueError(
            f"link {text!r}, latency {latency}: give a positive number and its unit, such "
            "as 10Gbit or 1.2GB, and a latency of 0 s or more; units are kbit, Mbit, "
            "Gbit, kB, MB, GB per second"
        )

    def seconds(self, size: float) -> float:
        """Seconds of one message of ``size`` bytes."""
        if not self.curve:
            return self.latency + size / self.bandwidth
        last, longest = self.curve[-1]
        if size <= last:
            sizes, seconds = zip(*self.curve, strict=True)
            return float(np.interp(size, sizes, seconds))
        before, shorter = self.curve[-2]
        return longest + (size - last) * (longest - shorter) / (last - before)

    def bounded(self, bandwidth: float) -> "Link":
        """The link where something else lets no more than this many bytes per second by.

        Example:
            >>> Link(2.0, 1.0, ((0, 1.0), (8, 5.0))).bounded(1.0).seconds(8)
            8.0
        """
        curve = tuple((n, max(t, n / bandwidth)) for n, t in self.curve)
        return Link(min(self.bandwidth, bandwidth), self.latency, curve)


def fit_link(
    sizes: Sequence[float], seconds: Sequence[float], ranks: int = 2
) -> tuple[Link, float]:
    """The link whose ring all-reduces take the measured seconds, by relative errors.

    Args:
        sizes: bytes that were reduced; at least two different ones.
        seconds: measured, one for each size.
        ranks: that took part.

    Returns:
        The link, and the largest relative error of the line at the measured sizes:
        caches and protocols make real links faster at some sizes than at others.

    Raises:
        ValueError: fewer than two sizes, or times that do not grow with the size.

    Example:
        >>> link, error = fit_link([1e4, 1e6, 1e8], [2.001e-3, 2.1e-3, 12e-3])
        >>> round(link.bandwidth / 1e9, 3), round(link.latency, 6), error < 1e-6
        (10.0, 0.001, True)
    """
    number("fit_link", "ranks", ranks, ">= 2")
    if len(set(sizes)) < 2 or len(sizes) != len(seconds):
        raise ValueError(
            f"fit_link: {len(sizes)} sizes and {len(seconds)} times; give as many times as "
            "sizes, of at least two different sizes"
        )
    n, t = np.asarray(sizes, float), np.asarray(seconds, float)
    rounds = 2 * (ranks - 1)
    terms = np.stack([np.full_like(n, rounds), rounds / ranks * n], 1)
    latency, per_byte = np.linalg.lstsq(terms / t[:, None], np.ones_like(t))[0]
    if per_byte <= 0:
        raise ValueError(
            f"fit_link: the times {list(map(float, seconds))} do not grow with the sizes "
            f"{list(map(float, sizes))}; measure larger messages"
        )
    if latency < 0:  # a line through the origin: the bandwidth alone
        ratios = terms[:, 1] / t
        latency, per_byte = 0.0, ratios.sum() / (ratios @ ratios)
    error = np.abs(terms @ [latency, per_byte] / t - 1).max()
    return Link(1 / float(per_byte), float(latency)), float(error)


def measured_curve(
    sizes: Sequence[float], seconds: Sequence[float], ranks: int = 2
) -> tuple[tuple[float, float], ...]:
    """The :attr:`Link.curve` on which ring all-reduces take the measured seconds.

    A message is one of the ring's ``2 (p - 1)``, of a ``p``-th of the bytes. One that
    seemed to take longer than a longer one did is taken to last as long as that.

    Args:
        sizes: bytes that were reduced; at least two different ones.
        seconds: measured, one for each size.
        ranks: that took part.

    Raises:
        ValueError: fewer than two sizes.

    Example:
        >>> curve = measured_curve([8.0, 80.0], [2.0, 6.0])
        >>> curve, Link(curve=curve).seconds(40)
        (((4.0, 1.0), (40.0, 3.0)), 3.0)
    """
    number("measured_curve", "ranks", ranks, ">= 2")
    found = dict(sorted(zip(sizes, seconds, strict=True)))
    if len(found) < 2:
        raise ValueError(f"measured_curve: {len(found)} sizes; give two or more")
    lasting = np.minimum.accumulate(list(found.values())[::-1])[::-1]
    rounds = 2 * (ranks - 1)
    return tuple(
        (size / ranks, float(time) / rounds)
        for size, time in zip(found, lasting, strict=True)
    )
