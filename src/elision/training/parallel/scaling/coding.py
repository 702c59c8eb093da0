"""Coding: what a compressor's messages cost for the gradients of a real model."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from elision.common.checks import integer
from elision.training.parallel.compressors import Compressor, State, make_compressor
from elision.training.parallel.scaling.compression import Coded
from elision.training.parallel.scaling.measure import clock_of

__all__ = ["CodedGradients", "measured_compression"]

#: Messages that a gathered exchange reads while it is timed: those of two ranks.
_READ = 2

#: A step after any warm-up that a compressor has, such as DGC's, in which it sends more.
_LATE_STEP = 10**6


@dataclass(frozen=True)
class CodedGradients:
    """The message of each gradient of a model under one compressor.

    Attributes:
        compressor: its spec.
        messages: of each gradient, in the order in which gradients are ready.

    Example:
        >>> halves = CodedGradients("bf16", (Coded(summed=8.0), Coded(summed=2.0)))
        >>> halves.coded(slice(0, 2), [16.0, 4.0]).summed
        10.0
    """

    compressor: str
    messages: tuple[Coded, ...]

    def coded(self, places: slice, sizes: Sequence[float]) -> Coded:
        """The messages of a bucket's gradients together."""
        del sizes
        return Coded.together(self.messages[places])

    @property
    def seconds(self) -> float:
        """Seconds to make the messages of a step and read one rank's."""
        return Coded.together(self.messages).seconds(1)

    @property
    def size(self) -> float:
        """Bytes of the messages of a step."""
        return sum(m.summed + m.gathered for m in self.messages)


def measured_compression(
    spec: str,
    shapes: Sequence[Sequence[int]],
    rounds: int = 3,
    *,
    feedback: bool | None = None,
    wall: bool = False,
) -> CodedGradients:
    """Bits of a compressor by its own formula, and its seconds as timed here.

    Every gradient is exchanged, with the memory of what was not sent where the compressor
    needs one: normal values, one exchange to warm up and then medians. Whether messages
    are added on the way or gathered, and in how many rounds, is what they declare. A
    compressor that sends more in its first steps is taken after them.

    Args:
        spec: such as ``"top-k:share=0.01"``.
        shapes: of the gradients, in the order in which they are ready.
        rounds: timed exchanges of each.
        feedback: as in :func:`~elision.training.parallel.compress_hook`.
        wall: by the wall clock, other programs' load included.

    Raises:
        ValueError: an unknown compressor, or ``mask``, whose message depends on masks.

    Example:
        >>> found = measured_compression("powersgd:rank=1", [(64, 32), (64,)], rounds=1)
        >>> [message.summed for message in found.messages]
        [384.0, 256.0]
    """
    integer("measured_compression", "rounds", rounds)
    compressor = make_compressor(spec, feedback)
    if spec.partition(":")[0].partition("(")[0] == "mask":
        raise ValueError(
            "compressor 'mask': what it sends depends on the masks of a model, which "
            "shapes alone do not have; choose another"
        )
    random = torch.Generator().manual_seed(0)
    found = []
    for place, shape in enumerate(shapes):
        values = torch.randn(tuple(shape), generator=random)
        state = State(name=f"gradient {place}", ranks=_READ, step=_LATE_STEP)
        bits = compressor.bits(values.shape, state)
        times = [
            _exchanged(compressor, values, state, wall) for _ in range(rounds + 1)
        ][1:]
        once, each = (median(time[i] for time in times) for i in (0, 1))
        *_, summed, count = times[-1]
        size = bits / 8
        found.append(
            Coded(summed=size, once=once + each, rounds=count)
            if summed
            else Coded(gathered=size, once=once, each=each)
        )
    return CodedGradients(spec, tuple(found))


def _exchanged(
    compressor: Compressor, values: torch.Tensor, state: State, wall: bool
) -> tuple[float, float, bool, int]:
    """Seconds to make messages and to read one; whether they are summed, and how many."""
    clock = clock_of(wall)
    began, sent = clock(), 0
    running = compressor.exchange(values, state)
    message = next(running)
    while True:
        sent += 1
        reply = message if message.summed else [message] * _READ
        between = clock()
        try:
            following = running.send(reply)
        except StopIteration:
            read = clock() - between
            each = read if message.summed else read / _READ
            return between - began, each, message.summed, sent
        message = following
