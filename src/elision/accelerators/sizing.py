"""Choosing an array: the smallest buffers without stalls, the best shape of the array."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from elision.accelerators.intergrad import InterGrad
from elision.accelerators.sram import WORD_BYTES, Buffers
from elision.accelerators.step import check_layers, step_cost
from elision.accelerators.systolic import Systolic
from elision.products import Geometry

__all__ = ["ArrayShape", "BufferSizing", "array_shapes", "smallest_buffers"]

Array = TypeVar("Array", Systolic, InterGrad)
Layers = Iterable[tuple[str, Geometry]]


@dataclass(frozen=True)
class BufferSizing:
    """Result of :func:`smallest_buffers`.

    Attributes:
        buffers: the sizes found.
        stall_cycles: stalls of one training step that remain, because the DRAM is too
            slow for any buffers; 0 if there are none.
        cycles: cycles of the step without them.
    """

    buffers: Buffers
    stall_cycles: int
    cycles: int


def smallest_buffers(
    machine: Array, layers: Layers, dram_words_per_cycle: float | None = None
) -> BufferSizing:
    """The smallest buffers with which a training step stalls as little as with any.

    Starting from buffers that hold every tensor whole, the largest is shrunk first, each
    as far as the stalls allow with the others as they are; none of the three can then be
    smaller on its own, to the KiB. More stalls never come from a larger buffer, so each
    is found by bisection.

    Args:
        machine: the array; its own buffers do not matter.
        layers: (name, geometry) of each layer.
        dram_words_per_cycle: bandwidth; None: that of the machine's buffers.
    """
    layers = check_layers(layers)
    bandwidth = dram_words_per_cycle or machine.memory.dram_words_per_cycle
    least = math.ceil(Buffers.minimum_kib(machine.rows, machine.columns))
    sizes = {
        f"{family}_kib": max(least, _whole_kib(layers, operand))
        for family, operand in (
            ("input", "input"),
            ("weight", "weight"),
            ("output", "grad_output"),
        )
    }

    def stalls(sizes: dict[str, int]) -> int:
        buffers = Buffers(**sizes, dram_words_per_cycle=bandwidth)
        cost = step_cost(replace(machine, buffers=buffers), layers)
        return int(cost.details["stall_cycles"])

    unavoidable = stalls(sizes)
    for name in sorted(sizes, key=lambda n: -sizes[n]):
        low, high = least, sizes[name]
        while low < high:
            middle = (low + high) // 2
            if stalls({**sizes, name: middle}) > unavoidable:
                low = middle + 1
            else:
                high = middle
        sizes[name] = high
    buffers = Buffers(**sizes, dram_words_per_cycle=bandwidth)
    cycles = step_cost(replace(machine, buffers=buffers), layers).cycles
    return BufferSizing(buffers, unavoidable, cycles)


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
    """

    rows: int
    columns: int
    cycles: int
    stall_cycles: int
    utilisation: float
    energy_pj: float


def array_shapes(machine: Array, layers: Layers) -> list[ArrayShape]:
    """Cost of a training step on every array shape with the PE count of ``machine``.

    Rows run over the divisors of the PE count, from one row to one column. Buffers that
    are too small for a shape's tile do not occur: all shapes have tiles of equal size.
    """
    layers = check_layers(layers)
    pes = machine.rows * machine.columns
    shapes = []
    for rows in (r for r in range(1, pes + 1) if pes % r == 0):
        shaped = replace(machine, rows=rows, columns=pes // rows)
        cost = step_cost(shaped, layers)
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
