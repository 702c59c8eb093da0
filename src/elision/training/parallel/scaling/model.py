"""scaling_model: step time, speed-up and efficiency by the number of ranks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from elision.common.checks import integer, number, one_of
from elision.common.columns import column
from elision.common.names import lookup
from elision.training.parallel.scaling.collectives import (
    COLLECTIVES,
    AllGather,
    Collective,
)
from elision.training.parallel.scaling.compression import (
    Coded,
    Compressed,
    break_even,
)
from elision.training.parallel.scaling.cores import Cores
from elision.training.parallel.scaling.laws import (
    Usl,
    fit_amdahl,
    fit_gustafson,
    fit_usl,
    karp_flatt,
)
from elision.training.parallel.scaling.link import Link
from elision.training.parallel.scaling.overlap import (
    Sent,
    bucketed,
    competing,
    exposed,
    grouped,
    sent,
)
from elision.training.parallel.scaling.step import StepCosts

__all__ = ["BucketCosts", "ScalingModel", "ScalingRow", "scaling_model"]


class BucketCosts(NamedTuple):
    """A bucket's costs.

    Attributes:
        size: bytes of its gradients.
        ready: seconds of backward pass before the last of them.
        on_link: seconds of its message on the link.
        coding: seconds of a rank to make the message and to read what comes back.

    Example:
        >>> BucketCosts(size=8.0, ready=4.0, on_link=8.0, coding=0.0).on_link
        8.0
    """

    size: float
    ready: float
    on_link: float
    coding: float


@dataclass(frozen=True)
class ScalingRow:
    """A step with so many ranks, predicted.

    Attributes:
        ranks: that share the work.
        batch: examples of the rank that has most.
        compute: seconds of forward, backward and update of the slowest rank.
        communication: seconds that the link is busy.
        exposed: seconds that ranks wait for it after the backward pass.
        step: seconds of the step.
        throughput: examples per second of all ranks.
        speedup: throughput over that of one rank.
        efficiency: speed-up over ranks.
        karp_flatt: serial share that the speed-up stands for; None for one rank.
        sent_bytes: that one rank sends.

    Example:
        >>> ScalingRow(2, 8, 0.1, 0.02, 0.01, 0.11, 145.5, 1.82, 0.91, 0.099, 1e6).step
        0.11
    """

    ranks: int = column("ranks", ",")
    batch: int = column("examples a rank", ",")
    compute: float = column("compute, ms", ".4g", scale=1e3)
    communication: float = column("link busy, ms", ".4g", scale=1e3)
    exposed: float = column("exposed, ms", ".4g", scale=1e3)
    step: float = column("step, ms", ".4g", scale=1e3)
    throughput: float = column("examples/s", ".4g")
    speedup: float = column("speed-up", ".2f", "x")
    efficiency: float = column("efficiency", ".1f", " %", scale=100)
    karp_flatt: float | None = column("Karp-Flatt", ".2f", " %", scale=100)
    sent_bytes: float = column("sent a rank, MB", ".4g", scale=1e-6)


@dataclass(frozen=True)
class ScalingModel:
    """Predicted scaling of a training step; see :func:`scaling_model`.

    Attributes:
        step: costs on one rank.
        batch: examples of all ranks (strong) or of each (weak).
        mode: ``"strong"`` or ``"weak"``.
        collective: all-reduce of a bucket.
        ranks: rank counts of :attr:`rows`.
        compression: of the messages; None: float32.
        cores: of a node, where communication takes some; None: it takes none.
        overlap: whether buckets travel during the backward pass, without ``cores``.
        imbalance: slowest rank's time to compute over the mean's, by ranks.
        bucket_cap: bytes of a bucket; None: torch's default.
        core_share: of a rank's computing that a bucket on the link takes; None: none.
        rows: a row for each rank count.

    Example:
        >>> costs = StepCosts((0.0, 0.01), (0.0, 0.02))
        >>> [row.efficiency for row in scaling_model(costs, Link(), ranks=(1, 4), batch=8).rows]
        [1.0, 1.0]
    """

    step: StepCosts
    batch: int
    mode: Literal["strong", "weak"]
    collective: Collective
    ranks: tuple[int, ...]
    compression: Compressed | None = None
    cores: Cores | None = None
    overlap: bool = True
    imbalance: Callable[[int], float] = lambda ranks: 1.0
    bucket_cap: float | None = None
    core_share: float | None = None

    @property
    def rows(self) -> tuple[ScalingRow, ...]:
        """A row for each rank count that has an example for every rank."""
        return tuple(self.row(ranks) for ranks in self.ranks if self._fits(ranks))

    def row(self, ranks: int) -> ScalingRow:
        """The step of so many ranks.

        Raises:
            ValueError: fewer examples than ranks.
        """
        if not self._fits(ranks):
            raise ValueError(
                f"scaling_model: a batch of {self.batch} cannot be shared by {ranks} ranks"
            )
        own, examples = self._batches(ranks)
        copies = sum(self.step.copies) if ranks > 1 else 0.0
        compute = self._computing(ranks) * (self.step.seconds(own) + copies)
        times, ended = self._sent(ranks)
        backward = self.backward_seconds(ranks)
        waiting = max(exposed(times, backward), ended - backward)
        total = compute + waiting
        # One rank has every core, every example and nobody to wait for.
        alone = self.step.seconds(self.batch) / self.batch
        speedup = examples / total * alone
        return ScalingRow(
            ranks=ranks,
            batch=own,
            compute=compute,
            communication=sum(time.end - time.start for time in times),
            exposed=waiting,
            step=total,
            throughput=examples / total,
            speedup=speedup,
            efficiency=speedup / ranks,
            karp_flatt=None if ranks == 1 else karp_flatt(ranks, speedup),
            sent_bytes=self._sent_bytes(ranks),
        )

    def timeline(self, ranks: int) -> list[Sent]:
        """Each bucket's way, in seconds from the begin of the backward pass."""
        return self._sent(ranks)[0]

    def backward_end(self, ranks: int) -> float:
        """When the backward pass ends that buckets slow down, in seconds from its begin."""
        return self._sent(ranks)[1]

    def _sent(self, ranks: int) -> tuple[list[Sent], float]:
        """Each bucket's way, and when the backward pass ends that they slow down."""
        backward = self.backward_seconds(ranks)
        if ranks == 1:
            return [], backward
        overlaps = self.overlap if self.cores is None else self.cores.overlaps
        ready, seconds, shares = [], [], []
        for bucket in self.buckets(ranks):
            ready.append(bucket.ready if overlaps else backward)
            seconds.append(bucket.on_link + bucket.coding)
            taken = (self.core_share or 0.0) * bucket.on_link + bucket.coding
            shares.append(taken / seconds[-1] if seconds[-1] else 0.0)
        if self.core_share is None or not overlaps:
            return sent(ready, seconds), backward
        return competing(ready, seconds, shares, backward)

    def backward_seconds(self, ranks: int) -> float:
        """Seconds of the slowest rank's backward pass, buckets filled, nothing sent."""
        own, _ = self._batches(ranks)
        filling = self.step.copies[0] if ranks > 1 else 0.0
        return self._computing(ranks) * (self.step.backward_seconds(own) + filling)

    @property
    def fastest(self) -> int:
        """The rank count with the highest throughput."""
        return max(self.rows, key=lambda row: row.throughput).ranks

    def pays_until(self, efficiency: float = 0.5) -> int:
        """The rank count beyond which more ranks do not pay.

        The last one before the efficiency falls below the given one, or before the
        throughput falls, whichever is first. What pays is for a person to say: half the
        efficiency of one rank is this project's default.
        """
        number("pays_until", "efficiency", efficiency, "(0, 1]")
        last, best = 1, 0.0
        for row in sorted(self.rows, key=lambda row: row.ranks):
            if row.ranks > 1 and row.efficiency < efficiency:
                break
            if row.throughput <= best:
                break
            last, best = row.ranks, row.throughput
        return last

    @property
    def usl(self) -> Usl:
        """The universal scalability law fitted to the rows; likewise :attr:`amdahl`."""
        return fit_usl(*self._curve())

    @property
    def amdahl(self) -> float:
        """Amdahl's parallel share, fitted to the rows (strong scaling).

        Raises:
            ValueError: no row of more than one rank.
        """
        return fit_amdahl(*self._curve())

    @property
    def gustafson(self) -> float:
        """Gustafson's serial share, fitted to the rows (weak scaling)."""
        return fit_gustafson(*self._curve())

    def by_cores(self, ranks: int) -> list[tuple[int, ScalingRow]]:
        """The step of so many ranks by the cores given to communication.

        Raises:
            ValueError: the model was made without ``cores``.
        """
        if self.cores is None:
            raise ValueError("scaling_model: give cores= to trade them")
        return [
            (n, replace(self, cores=replace(self.cores, communicating=n)).row(ranks))
            for n in range(self.cores.total)
        ]

    def break_even(self, ranks: int) -> list[float]:
        """Bandwidth below which each bucket is sent sooner compressed, in bytes per second.

        Where its transfer is exposed; a hidden one gains nothing.

        Raises:
            ValueError: the model was made without ``compression``.
        """
        if self.compression is None:
            raise ValueError(
                "scaling_model: give compression= to compare it with float32"
            )
        latency = Link(latency=self.collective.link.latency)
        found = []
        for coded, plain in zip(
            self._messages(), self.uncompressed._messages(), strict=True
        ):
            more = (
                self._on(latency, coded, ranks)[0] - self._on(latency, plain, ranks)[0]
            )
            bare, own = (self._on(latency, each, ranks)[1] for each in (plain, coded))
            longer = max(coded.seconds(ranks) + more, 0.0)
            found.append(break_even(bare, own, longer))
        return found

    @property
    def uncompressed(self) -> "ScalingModel":
        """The same without compression."""
        return replace(self, compression=None)

    def buckets(self, ranks: int) -> list[BucketCosts]:
        """What each bucket costs, wherever the rank's backward pass is.

        Example:
            >>> from elision.training.parallel.scaling.overlap import Bucket
            >>> costs = StepCosts((0.0, 1.0), (0.0, 2.0), 0.0, (Bucket(8.0, 1.0),))
            >>> scaling_model(costs, Link(1.0), batch=4).buckets(2)
            [BucketCosts(size=8.0, ready=4.0, on_link=8.0, coding=0.0)]
        """
        backward = self.backward_seconds(ranks)
        return [
            BucketCosts(
                bucket.size,
                bucket.ready * backward,
                self._on(self._link(), coded, ranks)[0],
                coded.seconds(ranks),
            )
            for bucket, coded in zip(
                bucketed(self.step.gradients, self.bucket_cap),
                self._messages(),
                strict=True,
            )
        ]

    def _fits(self, ranks: int) -> bool:
        return self.mode == "weak" or ranks <= self.batch

    def _batches(self, ranks: int) -> tuple[int, int]:
        """Examples of the rank with most, and of all."""
        if self.mode == "weak":
            return self.batch, self.batch * ranks
        return math.ceil(self.batch / ranks), self.batch

    def _computing(self, ranks: int) -> float:
        """Factor of the time to compute."""
        if ranks == 1:
            return 1.0
        slowdown = self.cores.slowdown if self.cores else 1.0
        return slowdown * self.imbalance(ranks)

    def _link(self) -> Link:
        """The link that the cores leave."""
        link = self.collective.link
        return link if self.cores is None else link.bounded(self.cores.bound(math.inf))

    def _messages(self) -> list[Coded]:
        """The message of each bucket."""
        gradients = self.step.gradients
        found = []
        for places in grouped(gradients, self.bucket_cap):
            sizes = [gradient.size for gradient in gradients[places]]
            if self.compression is None:
                found.append(Coded(summed=sum(sizes)))
            else:
                found.append(self.compression.coded(places, sizes))
        return found

    def _on(self, link: Link, message: Coded, ranks: int) -> tuple[float, float]:
        """Seconds of a message on a link, and bytes that one rank sends."""
        seconds = sent_bytes = 0.0
        if message.summed:
            reduce = replace(self.collective, link=link)
            part = message.summed / message.rounds
            seconds += message.rounds * reduce.seconds(part, ranks)
            sent_bytes += reduce.sent_bytes(message.summed, ranks)
        if message.gathered:
            gather = AllGather(link)
            seconds += gather.seconds(message.gathered, ranks)
            sent_bytes += gather.sent_bytes(message.gathered, ranks)
        return seconds, sent_bytes

    def _sent_bytes(self, ranks: int) -> float:
        if ranks == 1:
            return 0.0
        return sum(self._on(self._link(), m, ranks)[1] for m in self._messages())

    def _curve(self) -> tuple[list[int], list[float]]:
        rows = self.rows
        return [row.ranks for row in rows], [row.speedup for row in rows]


def scaling_model(
    step: StepCosts,
    link: Link,
    *,
    ranks: Sequence[int] = (1, 2, 4, 8, 16),
    batch: int,
    mode: Literal["strong", "weak"] = "strong",
    collective: str = "ring",
    per_node: int = 1,
    inner: Link | None = None,
    compression: Compressed | None = None,
    cores: Cores | None = None,
    overlap: bool = True,
    imbalance: float | Callable[[int], float] = 1.0,
    bucket_cap: float | None = None,
    core_share: float | None = None,
) -> ScalingModel:
    """Predict data-parallel scaling from the costs of a step on one rank.

    A step is the slowest rank's time to compute, then what of the buckets' all-reduces
    the backward pass did not hide. Buckets travel one after the other. Nothing is fitted:
    what a real cluster has beyond these terms (congestion, noise of the system, reading
    of data) is not there unless ``imbalance`` says so.

    Args:
        step: costs on one rank, such as
            :func:`~elision.training.parallel.scaling.measure.measured_step` finds.
        link: between ranks, or nodes.
        ranks: rank counts.
        batch: examples of all ranks in strong scaling, of each rank in weak scaling.
        mode: whether the batch is shared or grows.
        collective: key of :data:`COLLECTIVES`.
        per_node: ranks of a node, of the hierarchical collective.
        inner: link inside a node, likewise; default: free.
        compression: of messages; default: float32.
        cores: cores of a node and those given to communication; default: communication
            takes no core and overlaps.
        overlap: whether buckets travel during the backward pass; ``cores`` decide it
            where they are given.
        imbalance: the slowest rank's time to compute over the mean, at least 1; a number
            for all counts above one, or a function of the count.
        bucket_cap: bytes at which a bucket closes; default: those of
            ``DistributedDataParallel``, 1 MiB for the first and 25 MiB for the others.
        core_share: share of a rank's computing that stands still while a bucket is on the
            link, in [0, 1], where a rank has no core to spare for what moves the bytes;
            :func:`~elision.training.parallel.scaling.calibrate.measured_link` measures
            it. Making and reading compressed messages then takes all of it. Default:
            both have cores of their own.

    Returns:
        The model, with a row for each rank count that has an example for every rank.

    Raises:
        ValueError: an unknown mode or collective, a number out of range, an argument that
            would be ignored, or no rank count.

    Example:
        >>> from elision.training.parallel.scaling.overlap import Bucket
        >>> costs = StepCosts((0.0, 0.001), (0.0, 0.002), 0.0, (Bucket(1e6, 1.0),))
        >>> model = scaling_model(costs, Link.parse("1Gbit"), batch=64, ranks=(1, 2, 4, 64))
        >>> [round(row.speedup, 2) for row in model.rows], model.pays_until()
        ([1.0, 1.85, 3.2, 10.24], 4)
    """
    one_of("scaling_model", "mode", mode, ("strong", "weak"))
    integer("scaling_model", "batch", batch)
    counts = tuple(integer("scaling_model", "ranks", n) for n in ranks)
    if not counts:
        raise ValueError("scaling_model: give at least one rank count")
    kind = lookup("collective", collective, COLLECTIVES)
    options: dict[str, Any] = {}
    if collective == "hierarchical":
        options = {"per_node": per_node, "inner": inner or Link()}
    elif per_node != 1 or inner is not None:
        raise ValueError(
            f"scaling_model(collective={collective!r}): per_node and inner would be "
            "ignored; they belong to 'hierarchical'"
        )
    if cores is not None and not overlap:
        raise ValueError(
            "scaling_model(overlap=False): would be ignored; communication overlaps where "
            "cores are given to it, and does not with Cores(communicating=0)"
        )
    if core_share is not None:
        number("scaling_model", "core_share", core_share, "[0, 1]")
        if cores is not None:
            raise ValueError(
                f"scaling_model(core_share={core_share}): would be ignored; with cores= "
                "communication has cores of its own, or does not overlap"
            )
    if bucket_cap is not None:
        number("scaling_model", "bucket_cap", bucket_cap, "> 0")
    factor = imbalance
    if not callable(factor):
        number("scaling_model", "imbalance", factor, ">= 1")
    return ScalingModel(
        step,
        batch,
        mode,
        kind(link, **options),
        tuple(sorted(set(counts))),
        compression,
        cores,
        overlap,
        factor if callable(factor) else lambda n, by=factor: by,
        bucket_cap,
        core_share,
    )
