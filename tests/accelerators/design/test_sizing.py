import dataclasses

import pytest

from elision.accelerators import Buffers, InterGrad, Systolic
from elision.accelerators.design.sizing import array_shapes, smallest_buffers
from elision.accelerators.step import step_cost
from elision.products import Conv2dGeometry, MatmulGeometry
from elision.report.array_shapes import array_shapes_svg

LAYERS = [
    ("first", Conv2dGeometry(2, 3, 24, 24, 16, 3, padding=1)),
    ("second", Conv2dGeometry(2, 16, 24, 24, 32, 3, stride=2, padding=1)),
    ("classifier", MatmulGeometry(2, 4608, 10)),
]


def stalls(machine, buffers):
    cost = step_cost(dataclasses.replace(machine, buffers=buffers), LAYERS)
    return cost.details["stall_cycles"]


@pytest.mark.parametrize(
    "machine", [Systolic(8, 8, "ws"), Systolic(16, 4, "os"), InterGrad(8, 8)]
)
@pytest.mark.parametrize("words_per_cycle", [0.5, 2, 100])
def test_no_buffer_can_be_smaller_on_its_own(machine, words_per_cycle):
    found = smallest_buffers(machine, LAYERS, words_per_cycle)
    assert stalls(machine, found.buffers) == found.stall_cycles
    huge = Buffers(
        input_kib=1e6,
        weight_kib=1e6,
        output_kib=1e6,
        dram_words_per_cycle=words_per_cycle,
    )
    assert stalls(machine, huge) == found.stall_cycles
    assert found.unavoidable_stall_cycles == found.stall_cycles
    least = Buffers.minimum_kib(machine.rows, machine.columns)
    for name in ("input_kib", "weight_kib", "output_kib"):
        smaller = getattr(found.buffers, name) - 1
        if smaller >= least:
            shrunk = dataclasses.replace(found.buffers, **{name: smaller})
            assert stalls(machine, shrunk) > found.stall_cycles


def test_tolerance_trades_stalls_for_buffers():
    machine = Systolic(8, 8)
    exact, loose = (
        smallest_buffers(machine, LAYERS, 2, tolerance) for tolerance in (0, 0.2)
    )
    spared = loose.stall_cycles - loose.unavoidable_stall_cycles
    assert 0 < spared <= 0.2 * loose.cycles
    kib = [sum(f.buffers.sizes_kib.values()) for f in (exact, loose)]
    assert kib[1] < kib[0]
    with pytest.raises(ValueError, match=r"tolerance=-1\): must be a number >= 0"):
        smallest_buffers(machine, LAYERS, tolerance=-1)


def test_a_fast_memory_needs_only_a_tile():
    found = smallest_buffers(Systolic(8, 8), LAYERS, 1e6)
    assert found.stall_cycles == 0
    assert set(found.buffers.sizes_kib.values()) == {1.0}
    assert found.cycles == step_cost(Systolic(8, 8), LAYERS).cycles


def test_shapes_are_all_factorings_of_the_pe_count():
    shapes = array_shapes(Systolic(8, 4), LAYERS)
    assert [(s.rows, s.columns) for s in shapes] == [
        (rows, 32 // rows) for rows in (1, 2, 4, 8, 16, 32)
    ]
    for shape in shapes:
        cost = step_cost(Systolic(shape.rows, shape.columns), LAYERS)
        assert (shape.cycles, shape.energy_pj) == (cost.cycles, cost.energy_pj)


def test_the_figure_marks_the_best_of_cycles_and_of_energy():
    arrays = {"plain": Systolic(8, 4), "interleaving": InterGrad(4, 8)}
    shapes = {name: array_shapes(array, LAYERS) for name, array in arrays.items()}
    figure = array_shapes_svg(shapes, "a network")
    for name, drawn in shapes.items():
        for measure in ("cycles", "energy_pj"):
            best = min(drawn, key=lambda shape: getattr(shape, measure))
            assert f"{name}: best {best.rows}×{best.columns}" in figure
    assert figure == array_shapes_svg(shapes, "a network")


@pytest.mark.parametrize("columns", [[], [2, 4]])
def test_a_figure_is_of_one_number_of_pes(columns):
    drawn = {f"2x{n}": array_shapes(Systolic(2, n), LAYERS) for n in columns}
    with pytest.raises(ValueError, match="one number of PEs"):
        array_shapes_svg(drawn)
