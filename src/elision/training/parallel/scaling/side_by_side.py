"""Measured overlap: a step of the ranks that are connected, beside the model of it."""

import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from torch import Tensor, distributed, nn, optim

from elision.accelerators.design.schedule import Slice
from elision.common.checks import integer
from elision.common.columns import column
from elision.report.scaling_figure import Step
from elision.training.parallel.scaling.calibrate import LinkCosts, measured_link
from elision.training.parallel.scaling.coding import measured_compression
from elision.training.parallel.scaling.measure import measured_copies, measured_step
from elision.training.parallel.scaling.model import ScalingModel, scaling_model
from elision.training.parallel.scaling.observed import ObservedModel, StepTimes

__all__ = ["MeasuredBucket", "Overlap", "measured_overlap"]

#: Steps before the timed ones: DDP fills its buckets anew after the first, and
#: compressors begin without a memory.
_WARM = 3


@dataclass(frozen=True)
class MeasuredBucket:
    """A bucket of the shown step of one rank, in seconds from the begin of the backward pass.

    Attributes:
        bucket: its number, in the order in which buckets were sent.
        size: bytes of its gradients.
        ready: when the last gradient was there.
        sent: when the exchange began.
        joined: when it had begun on every rank; until then this rank waits for others.
        done: when it had ended.
        took: seconds between those two.
        model_sent: when it begins by the model.
        model_done: when it ends by the model.
        model_took: what it takes by the model.

    Example:
        >>> MeasuredBucket(0, 8, 1.0, 1.5, 1.5, 2.0, 0.5, 1.0, 1.4, 0.4).took
        0.5
    """

    bucket: int = column("bucket")
    size: int = column("MB", ".3f", scale=1e-6)
    ready: float = column("ready, ms", ".2f", scale=1e3)
    sent: float = column("sent, ms", ".2f", scale=1e3)
    joined: float = column("on all ranks, ms", ".2f", scale=1e3)
    done: float = column("done, ms", ".2f", scale=1e3)
    took: float = column("took, ms", ".2f", scale=1e3)
    model_sent: float | None = column("sent, model", ".2f", scale=1e3)
    model_done: float | None = column("done, model", ".2f", scale=1e3)
    model_took: float | None = column("took, model", ".2f", scale=1e3)


@dataclass(frozen=True)
class Overlap:
    """Steps of real ranks beside the model.

    Attributes:
        steps: of every rank, the step of median length. On one machine all count from rank
            0's begin; across machines, whose clocks differ, each from its own.
        seconds: of each timed step, of the slowest rank.
        exposed: seconds of each, that communication was not hidden, of the rank that computed
            longest: it waits for no other.
        waited: seconds of each, that another rank waited more than this one.
        silent: seconds of steps that sent nothing, by turns with the others.
        link: what all-reduces took.
        model: of the same step, none of its terms fitted to :attr:`seconds`.

    Example:
        >>> from elision.training.parallel.scaling import Link, StepCosts, scaling_model
        >>> from elision.training.parallel.scaling.overlap import Bucket
        >>> costs = StepCosts((0.0, 1.0), (0.0, 2.0), 0.0, (Bucket(8.0, 1.0),))
        >>> model = scaling_model(costs, Link(1.0), batch=1, mode="weak", ranks=[2])
        >>> steps = tuple(StepTimes(rank, 1.0, 3.0, 12.0, 12.0) for rank in range(2))
        >>> link = LinkCosts(2, (4, 8, 16), (4.0, 8.0, 16.0), 0.0)
        >>> Overlap(steps, (12.0, 10.0), (9.0, 7.0), (0.0, 0.0), (3.0,), link, model).step_error
        0.0
    """

    steps: tuple[StepTimes, ...]
    seconds: tuple[float, ...]
    exposed: tuple[float, ...]
    waited: tuple[float, ...]
    silent: tuple[float, ...]
    link: LinkCosts
    model: ScalingModel

    @property
    def ranks(self) -> int:
        """How many there were."""
        return len(self.steps)

    @property
    def step_error(self) -> float:
        """Model's step over the measured median, less one."""
        return self.model.row(self.ranks).step / median(self.seconds) - 1

    @property
    def exposed_error(self) -> float:
        """Model's exposed communication less the measured median, over the measured step."""
        difference = self.model.row(self.ranks).exposed - median(self.exposed)
        return difference / median(self.seconds)

    def buckets(self, rank: int = 0) -> list[MeasuredBucket]:
        """The buckets of a rank; model's columns are None if its buckets are others."""
        step = self.steps[rank]
        ways = self.model.timeline(self.ranks)
        sizes = [bucket.size for bucket in self.model.buckets(self.ranks)]
        alike = sizes == [bucket.size for bucket in step.buckets]
        rows = []
        for number, own in enumerate(step.buckets):
            way = ways[number] if alike else None
            last = max(each.buckets[number].sent for each in self.steps)
            ready, sent, joined, done = (
                t - step.forward for t in (own.ready, own.sent, last, own.done)
            )
            rows.append(
                MeasuredBucket(
                    number,
                    own.size,
                    ready,
                    sent,
                    joined,
                    done,
                    done - joined,
                    way and way.start,
                    way and way.end,
                    way and way.end - way.start,
                )
            )
        return rows

    def slices(self) -> dict[str, list[Slice]]:
        """Busy intervals in microseconds, by rank and of the model, for a Chrome trace."""
        found = {
            f"rank {step.rank}, measured": _measured_slices(step) for step in self.steps
        }
        found["model"] = self._model_slices()
        return found

    def panels(self) -> list[Step]:
        """The steps as :func:`~elision.report.scaling_figure.steps_svg` draws them.

        On one machine all count from the begin of rank 0's backward pass.
        """
        found = []
        one_clock = len({step.begin for step in self.steps}) == 1
        for step in self.steps:
            zero = self.steps[0].forward if one_clock else step.forward
            found.append(
                Step(
                    self.ranks,
                    step.computed - zero,
                    [
                        (b.ready - zero, b.sent - zero, b.done - zero)
                        for b in step.buckets
                    ],
                    f"Rank {step.rank}, measured",
                    [(layer.start - zero, layer.end - zero) for layer in step.layers],
                )
            )
        ways = self.model.timeline(self.ranks)
        end = self.model.backward_end(self.ranks)
        return [*found, Step(self.ranks, end, ways, "Model")]

    def facts(self) -> dict[str, Any]:
        """Everything that was measured and predicted, for a file."""
        row = self.model.row(self.ranks)
        return {
            "ranks": self.ranks,
            "seconds": self.seconds,
            "exposed_seconds": self.exposed,
            "waited_seconds": self.waited,
            "silent_seconds": self.silent,
            "link": asdict(self.link),
            "line": asdict(self.link.line),
            "line_error": self.link.line_error,
            "steps": [asdict(step) for step in self.steps],
            "model": asdict(row),
            "model_timeline": [
                way._asdict() for way in self.model.timeline(self.ranks)
            ],
            "core_share": self.model.core_share,
            "copies": self.model.step.copies,
            "step_error": self.step_error,
            "exposed_error": self.exposed_error,
        }

    def _model_slices(self) -> list[Slice]:
        costs, model = self.model.step, self.model
        forward = costs.forward_seconds(1)
        ended = forward + model.backward_end(self.ranks)
        row = model.row(self.ranks)
        back = max(ended, forward + max(way.end for way in model.timeline(self.ranks)))
        slices = [
            Slice("step", "forward", 0.0, forward * 1e6),
            Slice("step", "backward", forward * 1e6, ended * 1e6),
            Slice("step", "update", (row.step - costs.update) * 1e6, row.step * 1e6),
        ]
        if back > ended:
            slices.append(Slice("step", "exposed", ended * 1e6, back * 1e6))
        for number, way in enumerate(model.timeline(self.ranks)):
            start, end = ((forward + t) * 1e6 for t in (way.start, way.end))
            slices.append(Slice("link", f"bucket {number}", start, end))
        return _in_turn(slices)


def _measured_slices(step: StepTimes) -> list[Slice]:
    ends = {"forward": step.forward, "backward": step.computed}
    ends |= {"exposed": step.backward, "update": step.end}
    slices, start = [], step.start
    for name, end in ends.items():
        slices.append(Slice("step", name, start * 1e6, end * 1e6))
        start = end
    for layer in step.layers:
        name = f"{layer.name}: both gradients"
        slices.append(Slice("layers", name, layer.start * 1e6, layer.end * 1e6))
    for number, bucket in enumerate(step.buckets):
        # A track for each bucket: their waiting overlaps.
        track = f"bucket {number}, {bucket.size / 1e6:.2f} MB"
        ready, sent, done = (t * 1e6 for t in bucket[1:4])
        slices.append(Slice(track, "ready, waits", ready, sent))
        slices.append(Slice(track, "on the link", sent, done))
    return _in_turn(slices)


def _in_turn(slices: list[Slice]) -> list[Slice]:
    """Slices of a track that begin no earlier than the one before ends, to the rounding."""
    free: dict[str, float] = {}
    found = []
    for piece in sorted(slices, key=lambda s: (s.start, s.end)):
        start = max(piece.start, free.get(piece.track, piece.start))
        free[piece.track] = end = max(piece.end, start)
        found.append(piece._replace(start=start, end=end))
    return found


def measured_overlap(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    make_optimizer: Callable[[nn.Module], optim.Optimizer],
    rounds: int = 15,
    *,
    compress: str | None = None,
    source: str = "measured here",
) -> Overlap:
    """Take steps with the connected ranks, and predict them: a collective call.

    Steps that send take turns with steps that do not, so that both meet the same load of
    the machine. The model knows the silent step (of the slowest rank), when each gradient
    is ready in it, the copies into buckets, the link as all-reduces of several sizes find
    it, and the share of a core that these take where the ranks have none to spare.

    Args:
        model: in training mode; it is trained by these steps.
        loss: forward pass and loss of the module that it is given, on this rank's examples.
        make_optimizer: called with the model.
        rounds: timed steps of each kind.
        compress: spec of a compressor; None: float32.
        source: for :attr:`StepCosts.source`.

    Raises:
        ValueError: no ranks are connected, or an unknown compressor.

    Example:
        >>> measured_overlap(
        ...     nn.Linear(2, 1), lambda m: m(None), lambda m: optim.SGD(m.parameters(), 0.1)
        ... )
        Traceback (most recent call last):
        ValueError: measured_link: no ranks are connected; start two or more, by torchrun
    """
    integer("measured_overlap", "rounds", rounds)
    link = measured_link(rounds=rounds)
    costs = measured_step(
        model,
        {1: lambda: loss(model)},
        make_optimizer,
        rounds,
        source,
        wall=True,
        copies=measured_copies(model, loss, rounds, wall=True),
    )
    coded = compress and measured_compression(compress, costs.shapes, wall=True)
    observed = ObservedModel(model, compress)
    optimizer = make_optimizer(model)
    taken: list[StepTimes] = []
    silent: list[float] = []
    for turn in range(rounds + _WARM):
        quiet = observed.step(loss, optimizer, sends=False)
        loud = observed.step(loss, optimizer)
        if turn >= _WARM:
            silent.append(quiet.end)
            taken.append(loud)
    of_ranks: list[Any] = [None] * distributed.get_world_size()
    mine = taken, silent, costs, socket.gethostname()
    distributed.all_gather_object(of_ranks, mine)
    everyone = [each[0] for each in of_ranks]
    seconds = [max(step.end for step in own) for own in zip(*everyone, strict=True)]
    # A bucket is back on all ranks at about one time, so who computed longest waits least.
    waits = [[step.exposed for step in own] for own in zip(*everyone, strict=True)]
    without = [max(own) for own in zip(*(each[1] for each in of_ranks), strict=True)]
    shown = sorted(range(rounds), key=seconds.__getitem__)[rounds // 2]
    steps = [own[shown] for own in everyone]
    if len({each[3] for each in of_ranks}) == 1:
        steps = [step.since(steps[0].begin) for step in steps]
    # Every rank has rank 0's costs, so that all have the same model.
    predicted = scaling_model(
        of_ranks[0][2].lasting(1, median(without)),
        link.link,
        batch=1,
        mode="weak",
        ranks=[len(everyone)],
        compression=coded or None,
        core_share=link.core_share if link.ranks_have_no_spare_core else None,
    )
    return Overlap(
        tuple(steps),
        tuple(seconds),
        tuple(min(own) for own in waits),
        tuple(max(own) - min(own) for own in waits),
        tuple(without),
        link,
        predicted,
    )
