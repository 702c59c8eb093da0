import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_layers import planar_geometries, sides, with_values

from elision.accelerators import Buffers, Systolic
from elision.accelerators.systolic.lowering import lower
from elision.accelerators.systolic.systolic import DATAFLOWS
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

LAYER_A = Conv2dGeometry(1, 64, 56, 56, 64, kernel=3, stride=1, padding=1)
LAYER_B = Conv2dGeometry(1, 64, 55, 55, 128, kernel=1, stride=2)


def cycles(kind, geometry, *array, **options):
    product = LayerProduct(kind, geometry)
    return Systolic(*array, **options).cost(product).cycles


@pytest.mark.parametrize(
    ("kind", "geometry", "dataflow", "expected"),
    [  # "Total Cycles" of SCALE-Sim 3.0.0, 32x32, bandwidth CALC
        (Product.FORWARD, LAYER_A, "ws", 116279),
        (Product.FORWARD, LAYER_A, "os", 125047),
        (Product.FORWARD, LAYER_A, "is", 278711),
        (Product.FORWARD, LAYER_B, "ws", 7023),
        (Product.FORWARD, LAYER_B, "os", 12599),
        (Product.FORWARD, LAYER_B, "is", 11099),
        (Product.WEIGHT_GRAD, LAYER_A, "ws", 131319),
        (Product.WEIGHT_GRAD, LAYER_A, "os", 115127),
        # the same weight gradient typed in as a matrix product
        (Product.FORWARD, MatmulGeometry(576, 3136, 64), "ws", 131319),
        (Product.FORWARD, MatmulGeometry(576, 3136, 64), "os", 115127),
    ],
)
def test_cycles_are_those_of_scale_sim(kind, geometry, dataflow, expected):
    assert cycles(kind, geometry, 32, 32, dataflow, counting="scalesim") == expected
    assert cycles(kind, geometry, 32, 32, dataflow) == expected + 1


@pytest.mark.parametrize(("dataflow", "percent"), [("ws", 97.09), ("os", 90.28)])
def test_utilisation_of_layer_a_is_that_of_scale_sim(dataflow, percent):
    cost = Systolic(32, 32, dataflow).cost(LayerProduct(Product.FORWARD, LAYER_A))
    assert cost.utilisation * 100 == pytest.approx(percent, abs=0.15)


@given(
    st.integers(1, 99),
    st.integers(1, 99),
    st.integers(1, 99),
    st.integers(1, 17),
    st.integers(1, 17),
)
def test_closed_forms(m, k, n, rows, columns):
    geometry = MatmulGeometry(rows=m, inner=k, columns=n)

    def folds(held_by_rows, held_by_columns):
        return math.ceil(held_by_rows / rows) * math.ceil(held_by_columns / columns)

    def count(dataflow, **options):
        return cycles(Product.FORWARD, geometry, rows, columns, dataflow, **options)

    assert count("ws") == folds(k, n) * (2 * rows + columns + m - 2)
    assert count("is") == folds(k, m) * (2 * rows + columns + n - 2)
    assert count("os") == folds(m, n) * (rows + columns + k - 2)
    explicit = folds(m, n) * (2 * rows + columns + k - 2)
    assert count("os", drain="explicit") == explicit
    assert count("ws", preload=True) == folds(k, n) * (rows + columns + m - 2) + rows


@given(
    st.sampled_from(list(Product)),
    planar_geometries,
    sides,
    sides,
    st.sampled_from(["ws", "os", "is"]),
)
def test_accesses_are_the_sum_over_tiles(kind, geometry, rows, columns, dataflow):
    machine = Systolic(rows, columns, dataflow, weight_grad="GtX")
    gemm = lower(kind, geometry, weight_grad="GtX")
    flow = DATAFLOWS[dataflow]
    sizes = {"m": gemm.m, "k": gemm.k, "n": gemm.n}

    def parts(size, step):
        return [min(step, size - start) for start in range(0, size, step)]

    reads_a = reads_b = writes = spent = 0
    for held_rows in parts(sizes[flow.rows], rows):
        for held_columns in parts(sizes[flow.columns], columns):
            tile = {**sizes, flow.rows: held_rows, flow.columns: held_columns}
            spent += machine.fold_cycles(sizes[flow.stream])
            reads_a += tile["m"] * tile["k"]
            reads_b += tile["k"] * tile["n"]
            writes += tile["m"] * tile["n"]
    cost = machine.cost(LayerProduct(kind, geometry))
    a, b, z = gemm.families
    assert cost.cycles == gemm.count * spent
    assert cost.accesses[f"{a}_sram.read"] == gemm.count * reads_a
    assert cost.accesses[f"{b}_sram.read"] == gemm.count * reads_b
    assert cost.accesses[f"{z}_sram.write"] == gemm.count * writes
    read_back = cost.accesses[f"{z}_sram.read"]
    assert read_back == gemm.count * writes - gemm.first_writes >= 0


@given(st.sampled_from(list(Product)), planar_geometries, sides, sides)
def test_no_pe_does_more_than_one_product_a_cycle(kind, geometry, rows, columns):
    for dataflow in DATAFLOWS:
        cost = Systolic(rows, columns, dataflow).cost(LayerProduct(kind, geometry))
        assert 0 < cost.utilisation <= 1
        assert cost.multiplies == geometry.dense_macs


@given(
    st.sampled_from(list(Product)),
    planar_geometries,
    st.integers(1, 4),
    sides,
    sides,
    st.sampled_from(["ws", "os", "is"]),
)
def test_a_batch_split_in_two_costs_at_least_the_whole(
    kind, geometry, more, rows, columns, dataflow
):

    def cost(batch):
        part = geometry.with_batch(batch)
        return Systolic(rows, columns, dataflow).cost(LayerProduct(kind, part))

    batch = geometry.shape_of("input")[0]
    halves, whole = cost(batch) + cost(more), cost(batch + more)
    assert halves.cycles >= whole.cycles
    if kind is not Product.WEIGHT_GRAD:  # adding up two halves of dW is not counted
        assert halves.energy_pj >= whole.energy_pj * (1 - 1e-12)


def test_depthwise_is_one_pass_per_channel():
    depthwise = Conv2dGeometry(1, 32, 14, 14, 32, 3, padding=1, groups=32)
    single = Conv2dGeometry(1, 1, 14, 14, 1, 3, padding=1)
    for kind in Product:
        one = cycles(kind, single, 8, 8)
        assert cycles(kind, depthwise, 8, 8) == 32 * one
        # the layer, not the pass, is what SCALE-Sim counts one cycle short
        scalesim = cycles(kind, depthwise, 8, 8, counting="scalesim")
        assert scalesim == 32 * one - 1


def test_the_gathered_input_gradient_multiplies_the_zeros_of_the_stride():
    geometry = Conv2dGeometry(1, 8, 16, 16, 8, kernel=4, stride=2, padding=1)
    product = LayerProduct(Product.INPUT_GRAD, geometry)
    scatter, gather = (
        Systolic(8, 8, input_grad=form).cost(product) for form in ("scatter", "gather")
    )
    assert scatter.multiplies == geometry.dense_macs
    assert gather.multiplies == 4 * geometry.dense_macs


def test_the_faster_weight_gradient_is_the_faster_of_both():
    product = LayerProduct(Product.WEIGHT_GRAD, Conv2dGeometry(1, 4, 9, 9, 64, 3))
    by_form = {
        form: Systolic(8, 8, weight_grad=form).cost(product).cycles
        for form in ("XtG", "GtX", "faster")
    }
    assert by_form["XtG"] != by_form["GtX"]
    assert by_form["faster"] == min(by_form["XtG"], by_form["GtX"])


@settings(max_examples=30)
@given(st.sampled_from(list(Product)), planar_geometries, st.integers(0, 99))
def test_zero_gating_saves_energy_and_no_cycle(kind, geometry, seed):
    product = with_values(kind, geometry, seed)
    plain = Systolic(4, 4).cost(product)
    gated = Systolic(4, 4, zero_gating=True).cost(product)
    assert gated.cycles == plain.cycles
    assert gated.multiplies == product.counts.valid
    assert gated.details["zero_multiplies"] == plain.multiplies - gated.multiplies
    assert "zero_multiplies" not in plain.details  # it reads no value
    assert gated.energy_pj <= plain.energy_pj


def test_zero_gating_needs_operands():
    machine = Systolic(4, 4, zero_gating=True)
    assert not machine.value_blind
    with pytest.raises(ValueError, match="zero gating needs the operands"):
        machine.cost(LayerProduct(Product.FORWARD, LAYER_A))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, r"rows=0\): must be an integer >= 1"),
        ({"columns": -3}, r"columns=-3\): must be an integer >= 1"),
        ({"rows": 2.5}, r"rows=2.5\)"),
        ({"dataflow": "wos"}, "unknown dataflow 'wos'.*ws, os, is"),
        ({"drain": "later"}, "unknown drain 'later'.*overlapped, explicit"),
        ({"counting": "scale-sim"}, "unknown counting.*did you mean 'scalesim'"),
        ({"input_grad": "col2im"}, "unknown form of the input gradient"),
        ({"weight_grad": "GX"}, "unknown form of the weight gradient.*GtX"),
        (
            {"rows": 64, "columns": 64, "buffers": Buffers(weight_kib=31)},
            r"weight_kib=31\): a 64x64 array needs at least 32 KiB",
        ),
    ],
)
def test_bad_parameters_say_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        Systolic(**options)


def test_an_array_larger_than_the_default_buffers_gets_larger_ones():
    memory = Systolic(1024, 1024).memory
    assert memory.weight_kib == 8192 == Buffers.minimum_kib(1024, 1024)
