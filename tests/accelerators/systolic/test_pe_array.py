"""The closed forms and the lowering against the register-by-register simulation."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_layers import autograd, matmuls, planar_geometries, sides, with_values

from elision.accelerators import InterGrad, Systolic
from elision.accelerators.design.schedule import schedule
from elision.accelerators.systolic.lowering import fold_result, lower, matrices
from elision.accelerators.systolic.pe_array import (
    Run,
    output_stationary,
    weight_stationary,
)
from elision.accelerators.systolic.pe_interleaved import interleaved
from elision.products import Product


def simulate(machine: Systolic, a: np.ndarray, b: np.ndarray) -> Run:
    array = (machine.rows, machine.columns)
    if machine.dataflow == "os":
        return output_stationary(a, b, *array, drain=machine.drain)
    if machine.dataflow == "ws":
        return weight_stationary(a, b, *array, preload=machine.preload)
    run = weight_stationary(b.T, a.T, *array, preload=machine.preload)
    run.results["z"] = run.results["z"].T
    run.reads = Counter({"a": run.reads["b"], "b": run.reads["a"]})
    return run


arrays = st.builds(
    Systolic,
    sides,
    sides,
    st.sampled_from(["ws", "os", "is"]),
    drain=st.sampled_from(["overlapped", "explicit"]),
    weight_grad=st.sampled_from(["XtG", "GtX"]),
)


@settings(max_examples=150, deadline=None)
@given(arrays, st.sampled_from(list(Product)), planar_geometries)
def test_every_product_is_computed_in_the_cycles_and_reads_of_the_closed_form(
    machine, kind, geometry
):
    product = with_values(kind, geometry)
    form = machine.weight_grad
    runs = [
        simulate(machine, a, b) for a, b in zip(*matrices(product, form), strict=True)
    ]
    z = np.stack([run.results["z"] for run in runs])
    assert fold_result(z, kind, geometry, form).equal(product.compute())

    cost = machine.cost(product)
    gemm = lower(kind, geometry, weight_grad=form)
    a, b, result = gemm.families
    assert sum(run.cycles for run in runs) == cost.cycles
    assert sum(run.macs for run in runs) == cost.multiplies
    assert sum(run.reads["a"] for run in runs) == cost.accesses[f"{a}_sram.read"]
    assert sum(run.reads["b"] for run in runs) == cost.accesses[f"{b}_sram.read"]
    writes = sum(run.writes["z"] for run in runs)
    assert writes == cost.accesses[f"{result}_sram.write"]


def ends(slices):
    """First clock, and one past the last, of each port in a schedule."""
    ports = {s.track: [] for s in slices if s.track.endswith(" port")}
    for piece in slices:
        if piece.track in ports:
            ports[piece.track].append(piece)
    return {
        track.removesuffix(" port"): (
            min(piece.start for piece in pieces),
            max(piece.end for piece in pieces),
        )
        for track, pieces in ports.items()
    }


@settings(max_examples=100, deadline=None)
@given(arrays, matmuls)
def test_ports_are_busy_when_the_schedule_says(machine, geometry):
    product = with_values(Product.FORWARD, geometry)
    (a,), (b,) = matrices(product)
    run = simulate(machine, a, b)
    seen = {port: (clocks[0], max(clocks) + 1) for port, clocks in run.ports.items()}
    assert seen == ends(schedule(machine, [product]))


@settings(max_examples=100, deadline=None)
@given(matmuls, sides, sides, st.sampled_from(["overlapped", "explicit"]))
def test_ports_of_a_pair_are_busy_when_the_schedule_says(
    geometry, rows, columns, drain
):
    pair = [
        with_values(kind, geometry)
        for kind in (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
    ]
    g, w, x = (t.numpy() for t in (pair[0].first, pair[0].second, pair[1].second))
    run = interleaved(g, x, w, rows, columns, drain)
    seen = {port: (clocks[0], max(clocks) + 1) for port, clocks in run.ports.items()}
    assert seen == ends(schedule(InterGrad(rows, columns, drain=drain), pair))


@settings(max_examples=60, deadline=None)
@given(matmuls, sides, sides, st.sampled_from(["ws", "is"]))
def test_preloading_hides_all_loads_but_the_first(geometry, rows, columns, dataflow):
    machine = Systolic(rows, columns, dataflow, preload=True)
    product = with_values(Product.FORWARD, geometry)
    (a,), (b,) = matrices(product)
    run = simulate(machine, a, b)
    assert np.array_equal(run.results["z"], product.compute().numpy())
    assert run.cycles == machine.cost(product).cycles


@settings(max_examples=60, deadline=None)
@given(matmuls, sides, sides)
def test_overlapped_results_leave_within_one_shift_of_the_end(geometry, rows, columns):
    (a,), (b,) = matrices(with_values(Product.FORWARD, geometry))
    assert output_stationary(a, b, rows, columns, "overlapped").tail == rows
    assert output_stationary(a, b, rows, columns, "explicit").tail == 0


@settings(max_examples=150, deadline=None)
@given(planar_geometries, sides, sides, st.sampled_from(["overlapped", "explicit"]))
def test_interleaving_gives_both_gradients_of_autograd_in_the_formula_s_cycles(
    geometry, rows, columns, drain
):
    input_grad = with_values(Product.INPUT_GRAD, geometry)
    weight_grad = with_values(Product.WEIGHT_GRAD, geometry)
    g, w = matrices(input_grad)
    _, x = matrices(weight_grad, "GtX")
    runs = [
        interleaved(*operands, rows, columns, drain)
        for operands in zip(g, x, w, strict=True)
    ]
    dx = fold_result(
        np.stack([run.results["dx"] for run in runs]), Product.INPUT_GRAD, geometry
    )
    dw = fold_result(
        np.stack([run.results["dw"] for run in runs]),
        Product.WEIGHT_GRAD,
        geometry,
        "GtX",
    )
    expected_dx, expected_dw = autograd(
        geometry, weight_grad.second, input_grad.second, input_grad.first
    )
    assert dx.equal(expected_dx)
    assert dw.equal(expected_dw)

    cost = InterGrad(rows, columns, drain=drain).cost_pair(input_grad, weight_grad)
    assert sum(run.cycles for run in runs) == cost.cycles
    assert sum(run.macs for run in runs) == cost.multiplies
    reads = sum((run.reads for run in runs), Counter())
    writes = sum((run.writes for run in runs), Counter())
    gemm = lower(Product.INPUT_GRAD, geometry)
    assert reads["g"] == cost.accesses["output_sram.read"]
    assert reads["w"] == cost.accesses["weight_sram.read"]
    assert writes["dw"] == cost.accesses["weight_sram.write"]
    assert writes["dx"] == cost.accesses["input_sram.write"]
    read_back = writes["dx"] - gemm.first_writes
    assert reads["x"] + read_back == cost.accesses["input_sram.read"]


@settings(max_examples=60, deadline=None)
@given(matmuls, sides, sides, st.sampled_from(["overlapped", "explicit"]))
def test_the_update_in_the_array_drains_the_new_weights(geometry, rows, columns, drain):
    input_grad = with_values(Product.INPUT_GRAD, geometry)
    weight_grad = with_values(Product.WEIGHT_GRAD, geometry)
    g, w, x = (
        t.numpy() for t in (input_grad.first, input_grad.second, weight_grad.second)
    )
    plain = interleaved(g, x, w, rows, columns, drain)
    update = interleaved(g, x, w, rows, columns, drain, learning_rate=0.25)
    assert np.array_equal(update.results["dw"], w - 0.25 * plain.results["dw"])
    assert np.array_equal(update.results["dx"], plain.results["dx"])
    assert update.cycles == plain.cycles


@pytest.mark.parametrize(
    ("rows_of_g", "rows", "columns", "clocks"),
    [(16, 8, 8, 46), (7, 3, 5, 20), (1, 4, 4, 8)],
)
def test_clocks_of_a_tile_without_load(rows_of_g, rows, columns, clocks):
    g, x, w = (
        np.ones((rows_of_g, rows)),
        np.ones((rows_of_g, columns)),
        np.ones((rows, columns)),
    )
    assert interleaved(g, x, w, rows, columns).cycles == clocks + rows
    assert InterGrad(rows, columns).tile_cycles(rows_of_g) == clocks + rows
