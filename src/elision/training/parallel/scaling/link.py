"""Link: latency and bandwidth between ranks, and their fit to measured collectives."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elision.common.checks import number

__all__ = ["Link", "fit_link"]

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

    Raises:
        ValueError: a bandwidth that is not positive, or a negative latency.

    Example:
        >>> Link(bandwidth=1e9, latency=1e-5).seconds(1e6)
        0.00101
    """

    bandwidth: float = math.inf
    latency: float = 0.0

    def __post_init__(self) -> None:
        number("Link", "bandwidth", self.bandwidth, "(0, inf]")
        number("Link", "latency", self.latency, ">= 0")

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
        return self.latency + size / self.bandwidth


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
