"""When each port of an array is busy: a cost laid out as a schedule of tiles.

The intervals are those of the PE-level simulations (``pe_array``, ``pe_interleaved``),
against which they are tested: a port is busy from the first clock in which any of its
lanes carries a value to the last. Results that drain under the next fold may leave
after the last cycle that a cost counts.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from elision.accelerators.base import Accelerator
from elision.accelerators.step import jobs
from elision.accelerators.systolic.intergrad import InterGrad
from elision.accelerators.systolic.lowering import Gemm, lower
from elision.accelerators.systolic.mixed import SystolicMixed
from elision.accelerators.systolic.systolic import DATAFLOWS, Systolic
from elision.products import LayerProduct, Product

__all__ = ["Slice", "schedule"]


class Slice(NamedTuple):
    """One thing that one track does for a while.

    Attributes:
        track: port or unit; its slices never overlap.
        name: what it does.
        start: first cycle.
        end: one past the last cycle.
        folds: how many folds it stands for; within a block of them the port may rest.
    """

    track: str
    name: str
    start: int
    end: int
    folds: int = 1


#: Every track, in the order in which they are listed.
TRACKS = ("product", "north port", "west port", "PEs", "south port", "array")

#: (track, name, start, end) within a fold, the fold starting at 0.
Phases = list[tuple[str, str, int, int]]


def schedule(
    machine: Accelerator, products: Iterable[LayerProduct], folds_shown: int = 16
) -> list[Slice]:
    """Lay out products, one after the other, as busy intervals of the machine's ports.

    Systolic arrays and interleaving arrays are drawn fold by fold; of any other machine a
    product is one slice. The gradients of a layer are paired where the machine pairs them.

    Args:
        machine: any accelerator.
        products: in the order in which they run.
        folds_shown: folds drawn singly per product; the rest is one block per port.

    Returns:
        Slices by track, each track in order of time.

    Raises:
        ValueError: ``folds_shown`` is below 1.
    """
    if folds_shown < 1:
        raise ValueError(f"schedule: folds_shown must be at least 1, got {folds_shown}")
    slices: list[Slice] = []
    now = 0
    for job in jobs(machine, products):
        kinds = " + ".join(product.kind.value for product in job)
        label = f"{job[0].name} {kinds}".strip()
        used = machine.plain if isinstance(machine, InterGrad) else machine
        if isinstance(used, SystolicMixed):
            used = used.configured_for(job[0])
        if isinstance(machine, InterGrad) and len(job) == 2:
            count, period, phases, lead = _interleaved(machine, job[0])
        elif isinstance(used, Systolic):
            count, period, phases, lead = _plain(used, used.lower(job[0]))
        else:
            cycles = used.cost(job[0]).cycles
            count, period, phases, lead = 1, cycles, [("array", "run", 0, cycles)], 0
        slices += _folds(label, now + lead, count, period, phases, folds_shown)
        slices.append(Slice("product", label, now, now + lead + count * period))
        now += lead + count * period
    return sorted(slices, key=lambda s: (TRACKS.index(s.track), s.start))


def _folds(
    label: str, start: int, count: int, period: int, phases: Phases, shown: int
) -> Iterator[Slice]:
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


def _plain(machine: Systolic, gemm: Gemm) -> tuple[int, int, Phases, int]:
    """(folds, cycles of one, phases, cycles before the first) of a plain product."""
    flow = DATAFLOWS[machine.dataflow]
    rows, columns = machine.rows, machine.columns
    streamed = getattr(gemm, flow.stream)
    count = gemm.count * math.prod(machine.folds(gemm))
    period = machine.fold_cycles(streamed)
    if machine.dataflow == "os":
        busy = rows + columns + streamed - 2
        last_of_first_column = rows + streamed - 1
        drain = (busy, busy + rows)
        if machine.drain == "overlapped":
            drain = (last_of_first_column, last_of_first_column + columns - 1 + rows)
        phases = [
            ("west port", "stream A", 0, streamed + rows - 1),
            ("north port", "stream B", 0, streamed + columns - 1),
            ("PEs", "multiply", 0, busy),
            ("south port", "drain Z", *drain),
        ]
        return count, period, phases, 0
    lead = rows if machine.preload else 0
    begin = 0 if machine.preload else rows  # preloading is done when a fold begins
    held, moving = ("A", "B") if machine.dataflow == "is" else ("B", "A")
    phases = [
        ("north port", f"load {held}", begin - rows, begin),
        ("west port", f"stream {moving}", begin, begin + streamed + rows - 1),
        ("PEs", "multiply", begin, period),
        ("south port", "Z leaves", begin + rows - 1, period),
    ]
    return count, period, phases, lead


def _interleaved(
    machine: InterGrad, input_grad: LayerProduct
) -> tuple[int, int, Phases, int]:
    """(tiles, cycles of one, phases, cycles before the first) of a pair of gradients."""
    gemm = lower(Product.INPUT_GRAD, input_grad.geometry)
    rows, columns = machine.array_rows, machine.array_columns
    period = machine.tile_cycles(gemm.m)
    stream = 2 * gemm.m
    done = rows + stream + rows + columns - 2
    drain = (period, period + rows) if machine.drain == "overlapped" else (done, period)
    phases = [
        ("north port", "load W", 0, rows),
        ("north port", "X and partial sums of dX", rows, rows + stream + columns - 1),
        ("west port", "stream G", rows, rows + stream + rows - 1),
        ("PEs", "multiply", rows, done),
        ("south port", "dX leaves", 2 * rows - 1, done - 1),
        ("south port", "drain dW", *drain),
    ]
    return gemm.count * math.prod(machine.folds(gemm)), period, phases, 0
