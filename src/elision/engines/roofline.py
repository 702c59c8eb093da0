"""Roofline of the products on this machine: which of its limits binds, with the number.

A product cannot run faster than the machine multiplies, nor than its tensors come from
memory (Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009)::

    attainable = min(peak, bandwidth · intensity)      intensity = 2·MACs / bytes

``bytes`` are those of the three tensors of the layer, once each, so that the intensity is
the same for all three products of a layer. A product is *compute-bound* where its intensity
is above ``peak / bandwidth``, the machine's balance, *bandwidth-bound* below it, and
*latency-bound* where the time at the roofline is less than that of an empty call. Tensors
that lie in a cache already come faster than from memory, and products with padding count as
operations though a kernel may leave them out: either gives shares above 1.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from elision.common.checks import integer
from elision.common.timing import elapsed
from elision.native import shared_object
from elision.products import Geometry, MatmulGeometry, Product

__all__ = ["Ceilings", "Roof", "measured_ceilings", "roof_of"]

#: Words of each of the triad's arrays: 64 MiB, more than the caches of the machines at hand.
TRIAD_WORDS = 1 << 24

#: A cache line of x86 and most ARM cores.
LINE_BYTES = 64


@dataclass(frozen=True)
class Ceilings:
    """Limits of this machine, measured.

    Attributes:
        peak_gflops: float32 multiply-adds in registers, two operations each.
        bandwidth_gbs: of STREAM's triad, two words read and one written; what a write
            reads before (write-allocate) is not counted.
        latency_ns: of a load from memory that waits for another.
        call_us: of the smallest product that torch computes.
        threads: for which all of these hold.

    Example:
        >>> here = Ceilings(100.0, 20.0, 100.0, 5.0, threads=1)
        >>> here.balance, here.lines_in_flight
        (5.0, 31.25)
    """

    peak_gflops: float
    bandwidth_gbs: float
    latency_ns: float
    call_us: float
    threads: int

    @property
    def balance(self) -> float:
        """Operations per byte from which on a product is compute-bound."""
        return self.peak_gflops / self.bandwidth_gbs

    @property
    def lines_in_flight(self) -> float:
        """Loads of a cache line that must be under way to reach the bandwidth (Little)."""
        return self.bandwidth_gbs * self.latency_ns / LINE_BYTES

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the balance among them, for JSON and tables."""
        return {
            **asdict(self),
            "balance": self.balance,
            "lines_in_flight": self.lines_in_flight,
        }


@dataclass(frozen=True)
class Roof:
    """Where a product stands under the roofline.

    Attributes:
        intensity: operations per byte of the three tensors.
        attainable_gflops: ``min(peak, bandwidth·intensity)``.
        seconds: of the product at that rate.
        bound: ``"compute"``, ``"bandwidth"`` or ``"latency"``.

    Example:
        >>> here = Ceilings(100.0, 20.0, 100.0, 5.0, threads=1)
        >>> roof = roof_of(MatmulGeometry(512, 512, 512), here)
        >>> roof.bound, round(roof.intensity, 1), roof.attainable_gflops
        ('compute', 85.3, 100.0)
        >>> roof_of(MatmulGeometry(1, 4096, 4096), here).bound
        'bandwidth'
        >>> roof_of(MatmulGeometry(1, 2, 3), here).bound
        'latency'
    """

    intensity: float
    attainable_gflops: float
    seconds: float
    bound: str

    def share(self, gflops: float) -> float:
        """A measured rate as a share of the attainable one."""
        return gflops / self.attainable_gflops


def roof_of(geometry: Geometry, ceilings: Ceilings, *, word_bytes: int = 4) -> Roof:
    """The roof over each of a layer's three products.

    Args:
        geometry: the layer.
        ceilings: of the machine, for the dtype computed in.
        word_bytes: bytes of one value of each tensor.

    Raises:
        ValueError: ``word_bytes`` is not a positive integer.
    """
    integer("roof_of", "word_bytes", word_bytes)
    operations = 2 * geometry.dense_macs
    words = sum(
        math.prod(geometry.shape_of(o)) for o in ("input", "weight", "grad_output")
    )
    intensity = operations / (word_bytes * words)
    reached = ceilings.bandwidth_gbs * intensity
    attainable = min(ceilings.peak_gflops, reached)
    seconds = operations / attainable / 1e9
    if seconds < ceilings.call_us / 1e6:
        bound = "latency"
    else:
        bound = "compute" if reached > ceilings.peak_gflops else "bandwidth"
    return Roof(intensity, attainable, seconds, bound)


def measured_ceilings(rounds: int = 7) -> Ceilings:
    """Measure this machine, with ``torch.get_num_threads()`` threads.

    Peak and bandwidth are the best of the rounds, since other load only takes away; the
    others are medians. It takes about a second and 192 MiB.

    Raises:
        ValueError: ``rounds`` is below 1.
        RuntimeError: the native kernels are not available here.
    """
    integer("measured_ceilings", "rounds", rounds)
    if (reason := shared_object.unavailable()) is not None:
        raise RuntimeError(f"there is nothing to measure with: {reason}")
    threads = torch.get_num_threads()
    return Ceilings(
        peak_gflops=_peak(rounds, threads),
        bandwidth_gbs=_bandwidth(rounds, threads),
        latency_ns=_latency(rounds),
        call_us=1e6 * _call(rounds),
        threads=threads,
    )


def _times(call: Callable[[], object], rounds: int) -> list[float]:
    call()
    return [elapsed(call).quoted for _ in range(rounds)]


def _peak(rounds: int, threads: int) -> float:
    library = shared_object.load()
    out = torch.empty(threads, dtype=torch.float32, device="cpu")
    steps = 1_000_000  # some milliseconds: long beside the clock's resolution

    def call() -> int:
        return library.elision_multiply_adds(steps, 0.5, threads, out.data_ptr())

    return 2 * call() / min(_times(call, rounds)) / 1e9


def _bandwidth(rounds: int, threads: int) -> float:
    a, b, c = (torch.ones(TRIAD_WORDS, dtype=torch.float32) for _ in range(3))
    pointers = (a.data_ptr(), b.data_ptr(), c.data_ptr())

    def call() -> None:
        shared_object.load().elision_triad(*pointers, 0.5, TRIAD_WORDS, threads)

    moved = 3 * a.element_size() * TRIAD_WORDS
    return moved / min(_times(call, rounds)) / 1e9


def _latency(rounds: int) -> float:
    """A walk through all lines of 64 MiB, once each, in random order."""
    words = LINE_BYTES // 8
    lines = TRIAD_WORDS * 4 // LINE_BYTES
    order = torch.randperm(lines, generator=torch.Generator().manual_seed(0)) * words
    place = torch.zeros(lines * words, dtype=torch.int64)
    place[order] = order.roll(-1)
    steps = 200_000  # of about 100 ns: some 20 ms a round

    def call() -> None:
        shared_object.load().elision_chase(place.data_ptr(), steps)

    return 1e9 * statistics.median(_times(call, rounds)) / steps


def _call(rounds: int) -> float:
    """Seconds of one product of one multiplication."""
    smallest, one = MatmulGeometry(1, 1, 1), torch.ones(1, 1)
    repeats = 1000  # of some microseconds: long beside the clock's resolution

    def call() -> None:
        for _ in range(repeats):
            smallest.compute(Product.FORWARD, one, one)

    return statistics.median(_times(call, rounds)) / repeats
