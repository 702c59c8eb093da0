"""Choosing an array: the smallest buffers without stalls, the best shape of the array."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from elision.accelerators.energy import prices_unused
from elision.accelerators.step import check_layers, step_cost
from elision.accelerators.systolic.array import SystolicArray
from elision.accelerators.systolic.sram import WORD_BYTES, Buffers
from elision.common.checks import number
from elision.products import Geometry

__all__ = ["ArrayShape", "BufferSizing", "array_shapes", "smallest_buffers"]

Layers = Iterable[tuple[str, Geometry]]


@dataclass(frozen=True)
class BufferSizing:
    """Result of :func:`smallest_buffers`.

    Attributes:
        buffers: the sizes found.
        stall_cycles: stalls of one training step with these buffers.
        unavoidable_stall_cycles: stalls that remain with any buffers, because the DRAM is
            too slow; 0 if there are none.
        cycles: cycles of the step without stalls.

    Example:
        >>> BufferSizing(Buffers(), 10, 10, 1000).stall_cycles
        10
    """

    buffers: Buffers
    stall_cycles: int
    unavoidable_stall_cycles: int
    cycles: int


def smallest_buffers(
    machine: SystolicArray,
    layers: Layers,
    dram_words_per_cycle: float | None = None,
    tolerance: float = 0.0,
    first_input_grad: bool = False,
) -> BufferSizing:
    """The smallest buffers with which a training step stalls no more than with any.

    Starting from buffers that hold every tensor whole, the largest is halved as long as
    the stalls allow it, then each is trimmed by bisection, which works because a larger
    buffer never stalls more. The search runs three times, each buffer being first among
    equals once, and the smallest sum is taken. Then none of the three buffers can be
    smaller on its own, to the KiB; another mixture may still be smaller in sum.

    Args:
        machine: the array; its own buffers do not matter.
        layers: (name, geometry) of each layer.
        dram_words_per_cycle: bandwidth; None: that of the machine's buffers.
        tolerance: accepted stalls beyond the unavoidable ones, as a share of the cycles.
            With a slow DRAM, avoiding the last stall takes a buffer that holds a whole
            tensor.
        first_input_grad: True counts an input gradient of the first layer, too.

    Raises:
        ValueError: a negative tolerance, or a broken layer list.
    """
    number("smallest_buffers", "tolerance", tolerance, ">= 0")
    layers = check_layers(layers)
    bandwidth = dram_words_per_cycle
    if bandwidth is None:
        bandwidth = machine.memory.dram_words_per_cycle
    least = math.ceil(Buffers.minimum_kib(machine.rows, machine.columns))
    sizes = {
        f"{family}_kib": max(least, _whole_kib(layers, operand))
        for family, operand in (
            ("input", "input"),
            ("weight", "weight"),
            ("output", "grad_output"),
        )
    }

    known: dict[Buffers, int] = {}

    def stalls(sizes: dict[str, int]) -> int:
        buffers = Buffers(**sizes, dram_words_per_cycle=bandwidth)
        if buffers not in known:
            with prices_unused():
                cost = step_cost(
                    machine.with_buffers(buffers), layers, first_input_grad
                )
            known[buffers] = int(cost.details["stall_cycles"])
        return known[buffers]

    unavoidable = stalls(sizes)
    cycles = step_cost(machine, layers, first_input_grad).cycles
    accepted = unavoidable + tolerance * cycles

    def allowed(sizes: dict[str, int]) -> bool:
        return stalls(sizes) <= accepted

    names = list(sizes)
    orders = [names[turn:] + names[:turn] for turn in range(len(names))]
    found = [_shrunk({n: sizes[n] for n in order}, least, allowed) for order in orders]
    best = min(found, key=lambda sizes: sum(sizes.values()))
    buffers = Buffers(**best, dram_words_per_cycle=bandwidth)
    return BufferSizing(buffers, stalls(best), unavoidable, cycles)


def _shrunk(
    sizes: dict[str, int], least: int, allowed: Callable[[dict[str, int]], bool]
) -> dict[str, int]:
    """Shrink buffers, the largest and of equals the first one first, while allowed."""
    sizes = dict(sizes)
    halving = [name for name, kib in sizes.items() if kib > least]
    while halving:
        name = max(halving, key=lambda n: sizes[n])
        half = max(least, sizes[name] // 2)
        if allowed({**sizes, name: half}):
            sizes[name] = half
        if sizes[name] > half or half == least:
            halving.remove(name)
    for name in sizes:
        low, high = max(least, sizes[name] // 2), sizes[name]
        while low < high:
            middle = (low + high) // 2
            if allowed({**sizes, name: middle}):
                high = middle
            else:
                low = middle + 1
        sizes[name] = high
    return sizes


def _whole_kib(layers: Sequence[tuple[str, Geometry]], operand: str) -> int:
    """Buffer whose half holds the largest such tensor and its gradient."""
    words = max(math.prod(geometry.shape_of(operand)) for _, geometry in layers)
    return math.ceil(2 * 2 * words * WORD_BYTES / 1024)


@dataclass(frozen=True)
class ArrayShape:
    """One training step on one shape of an array.

    Attributes:
        rows: of PEs.
        columns: of PEs.
        cycles: without waiting for the DRAM.
        stall_cycles: waiting for the DRAM.
        utilisation: share of the PEs' cycles that multiply.
        energy_pj: of the step, DRAM included.

    Example:
        >>> ArrayShape(16, 64, 1000, 0, 0.5, 2e6).utilisation
        0.5
    """

    rows: int
    columns: int
    cycles: int
    stall_cycles: int
    utilisation: float
    energy_pj: float


def array_shapes(
    machine: SystolicArray, layers: Layers, first_input_grad: bool = False
) -> list[ArrayShape]:
    """Cost of a training step on every array shape with the PE count of ``machine``.

    Rows run over the divisors of the PE count, from one row to one column. Buffers that
    are too small for a shape's tile do not occur: all shapes have tiles of equal size.

    Args:
        machine: the array as given.
        layers: (name, geometry) of each layer.
        first_input_grad: True counts an input gradient of the first layer, too.

    Raises:
        ValueError: a broken layer list.
    """
    layers = check_layers(layers)
    pes = machine.rows * machine.columns
    shapes = []
    for rows in (r for r in range(1, pes + 1) if pes % r == 0):
        shaped = machine.reshaped(rows, pes // rows)
        cost = step_cost(shaped, layers, first_input_grad)
        shapes.append(
            ArrayShape(
                rows=rows,
                columns=pes // rows,
                cycles=cost.cycles,
                stall_cycles=int(cost.details["stall_cycles"]),
                utilisation=cost.utilisation,
                energy_pj=cost.energy_pj,
            )
        )
    return shapes
