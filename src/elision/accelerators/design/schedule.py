"""Schedule of a training step: busy intervals of a machine's ports, fold by fold.

The intervals are those of the PE-level simulations (``pe_array``, ``pe_interleaved``),
against which they are tested: a port is busy from the first clock in which any of its
lanes carries a value to the last. Results that drain under the next fold may leave
after the last cycle that a cost counts.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from elision.accelerators.base import Accelerator
from elision.accelerators.step import jobs
from elision.accelerators.timing import Timing
from elision.common.checks import integer
from elision.products import LayerProduct

__all__ = ["Slice", "schedule"]


class Slice(NamedTuple):
    """A busy interval of one track.

    Attributes:
        track: port or unit; its slices never overlap.
        name: its activity.
        start: first cycle, or a time.
        end: one past the last cycle, or a time.
        folds: number of folds in the interval; within a block of them the port may rest.

    Example:
        >>> Slice("west port", "conv1 forward, fold 1: stream A", 0, 12).folds
        1
    """

    track: str
    name: str
    start: float
    end: float
    folds: int = 1


#: Every track, in the order in which they are listed.
TRACKS = ("product", "north port", "west port", "PEs", "south port", "array")


def schedule(
    machine: Accelerator, products: Iterable[LayerProduct], folds_shown: int = 16
) -> list[Slice]:
    """Lay out products, one after the other, as busy intervals of the machine's ports.

    The machine's :meth:`~elision.accelerators.base.Accelerator.timing` gives the folds of
    each; the gradients of a layer are one job on a machine that interleaves them.

    Args:
        machine: any accelerator.
        products: in the order in which they run.
        folds_shown: folds drawn singly per product; the rest is one block per port.

    Returns:
        Slices by track, each track in order of time.

    Raises:
        ValueError: ``folds_shown`` is below 1.
    """
    integer("schedule", "folds_shown", folds_shown)
    slices: list[Slice] = []
    now = 0
    for job in jobs(machine, products):
        kinds = " + ".join(product.kind.value for product in job)
        label = f"{job[0].name} {kinds}".strip()
        timing = machine.timing(job)
        slices += _folds(label, now + timing.lead, timing, folds_shown)
        slices.append(Slice("product", label, now, now + timing.cycles))
        now += timing.cycles
    return sorted(slices, key=lambda s: (TRACKS.index(s.track), s.start))


def _folds(label: str, start: int, timing: Timing, shown: int) -> Iterator[Slice]:
    """Slices of the first ``shown`` folds, and one of the others for each track."""
    count, period, phases = timing.folds, timing.period, timing.phases
    shown = min(shown, count)
    for fold in range(shown):
        begin = start + fold * period
        for track, what, first, last in phases:
            if first < last:
                name = f"{label}, fold {fold + 1}: {what}"
                yield Slice(track, name, begin + first, begin + last)
    if shown == count:
        return
    for track in dict.fromkeys(phase[0] for phase in phases):
        busy = [(a, b) for name, _, a, b in phases if name == track and a < b]
        begin = start + shown * period + min((a for a, _ in busy), default=0)
        end = start + (count - 1) * period + max((b for _, b in busy), default=0)
        if begin < end:
            rest = count - shown
            yield Slice(track, f"{label}, {rest} more folds", begin, end, rest)
