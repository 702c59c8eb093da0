import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_layers import matmuls, planar_geometries, sides, with_values

from elision.accelerators import Buffers, InterGrad, Systolic, SystolicMixed
from elision.accelerators.step import products_cost, step_cost
from elision.accelerators.systolic.intergrad import estimated_pe_area_ratio
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

FC = MatmulGeometry(rows=32, inner=1024, columns=1024)


def pair(geometry):
    return (
        LayerProduct(Product.INPUT_GRAD, geometry),
        LayerProduct(Product.WEIGHT_GRAD, geometry),
    )


def separate(geometry, rows, columns, drain="explicit"):
    """dX weight-stationary, then dW output-stationary, on the same tiles."""
    plain = InterGrad(rows, columns, drain=drain)
    return sum(plain.cost(product) for product in pair(geometry))


@given(planar_geometries, sides, sides, st.sampled_from(["overlapped", "explicit"]))
def test_interleaving_never_takes_more_cycles_than_ws_and_os(
    geometry, rows, columns, drain
):
    together = InterGrad(rows, columns, drain=drain).cost_pair(*pair(geometry))
    assert together.cycles <= separate(geometry, rows, columns, drain).cycles
    assert 0 < together.utilisation <= 1
    assert together.multiplies == 2 * geometry.dense_macs


@given(planar_geometries, sides, sides)
def test_interleaving_reads_the_gradient_exactly_half_as_often(geometry, rows, columns):
    together = InterGrad(rows, columns).cost_pair(*pair(geometry))
    apart = separate(geometry, rows, columns)
    g_reads = apart.accesses["output_sram.read"]
    assert 2 * together.accesses["output_sram.read"] == g_reads
    others = {"input_sram", "weight_sram"}
    for access, count in apart.accesses.items():
        if access.split(".")[0] in others:
            assert together.accesses[access] == count


@given(planar_geometries, st.integers(1, 4), sides, sides)
def test_a_batch_split_in_two_costs_at_least_the_whole(geometry, more, rows, columns):
    machine = InterGrad(rows, columns)

    def count(batch):
        part = geometry.with_batch(batch)
        return machine.cost_pair(*pair(part)).cycles

    batch = geometry.shape_of("input")[0]
    assert count(batch) + count(more) >= count(batch + more)


@pytest.mark.parametrize(
    ("batch", "overlapped", "explicit", "memory", "with_update"),
    [  # 1024x1024 on a 64x64 array; an independent calculation, to two digits
        (1, 1.66, 1.99, 1.01, 2.46),
        (16, 1.57, 1.86, 1.08, 2.09),
        (32, 1.50, 1.75, 1.13, 1.88),
        (64, 1.40, 1.60, 1.17, 1.67),
        (256, 1.18, 1.27, 1.23, 1.39),
    ],
)
def test_gain_of_a_fully_connected_layer(
    batch, overlapped, explicit, memory, with_update
):
    geometry = dataclasses.replace(FC, rows=batch)
    machine = InterGrad(64, 64)
    together = machine.cost_pair(*pair(geometry))

    def sram(cost):
        return sum(n for name, n in cost.accesses.items() if "_sram" in name)

    for drain, gain in (("overlapped", overlapped), ("explicit", explicit)):
        apart = separate(geometry, 64, 64, drain)
        assert apart.cycles / together.cycles == pytest.approx(gain, abs=0.006)
    assert sram(apart) / sram(together) == pytest.approx(memory, abs=0.006)
    updated = InterGrad(64, 64, in_array_update=True).cost_pair(*pair(geometry))
    with_pass = sram(apart) + sram(machine.cost_update(geometry))
    assert with_pass / sram(updated) == pytest.approx(with_update, abs=0.006)


def test_the_first_layer_runs_plain():
    first = Conv2dGeometry(2, 3, 16, 16, 8, 3, padding=1)
    second = Conv2dGeometry(2, 8, 16, 16, 8, 3, padding=1)
    machine = InterGrad(8, 8)
    forward, weight_grad = (
        LayerProduct(kind, first) for kind in (Product.FORWARD, Product.WEIGHT_GRAD)
    )
    expected = (
        Systolic(8, 8, "ws").cost(forward).cycles
        + Systolic(8, 8, "os", weight_grad="GtX").cost(weight_grad).cycles
        + Systolic(8, 8, "ws").cost(LayerProduct(Product.FORWARD, second)).cycles
        + machine.cost_pair(*pair(second)).cycles
    )
    layers = [("first", first), ("second", second)]
    assert step_cost(machine, layers).cycles == expected
    with_input = step_cost(machine, layers, first_input_grad=True).cycles
    assert with_input == expected + (
        machine.cost_pair(*pair(first)).cycles - machine.cost(weight_grad).cycles
    )


def test_products_of_a_trace_are_paired_by_layer_and_step():
    machine = InterGrad(8, 8)
    products = [
        LayerProduct(kind, FC, name=name, step=step)
        for step in (0, 1)
        for kind in (Product.FORWARD, Product.WEIGHT_GRAD, Product.INPUT_GRAD)
        for name in ("a", "b")
    ]
    one = machine.cost(products[0]).cycles + machine.cost_pair(*pair(FC)).cycles
    assert products_cost(machine, products).cycles == 4 * one
    lone = [p for p in products if p.kind is Product.INPUT_GRAD]
    assert products_cost(machine, lone).cycles == 4 * machine.cost(lone[0]).cycles


def test_a_machine_configured_per_product():
    machine = SystolicMixed(8, 8, forward="is", drain="explicit")
    flows = [
        Systolic(8, 8, "is"),
        Systolic(8, 8, "ws"),
        Systolic(8, 8, "os", drain="explicit", weight_grad="GtX"),
    ]
    for kind, array in zip(Product, flows, strict=True):
        product = LayerProduct(kind, FC)
        assert machine.cost(product) == array.cost(product)
    assert machine.value_blind
    assert not SystolicMixed(8, 8, zero_gating=True).value_blind
    with pytest.raises(ValueError, match="unknown dataflow 'up'"):
        SystolicMixed(8, 8, weight_grad="up")


def test_a_larger_pe_leaves_a_smaller_array_of_at_most_the_same_area():
    plain = Systolic(64, 32, energy="aladdin-40nm")
    machine = InterGrad(64, 32, pe_area_ratio=1.1, energy="aladdin-40nm")
    assert (machine.array_rows, machine.array_columns) == (61, 30)
    assert 0.9 * plain.area_mm2 < machine.area_mm2 <= plain.area_mm2
    cost = machine.cost_pair(*pair(FC))
    assert cost.area_mm2 == machine.area_mm2
    assert cost.cycles == InterGrad(61, 30).cost_pair(*pair(FC)).cycles


def test_the_estimated_area_ratio_is_one_more_register(tmp_path):
    # Aladdin: multiplier 6350, adder 278, register bit 5.98 um2
    base = 6350 + 278 + 3 * 32 * 5.98
    assert estimated_pe_area_ratio() == pytest.approx(1 + 32 * 5.98 / base)
    bare = tmp_path / "bare.toml"
    bare.write_text(
        'name = "bare"\nnode_nm = 45\nsource = "none"\nregister_pj = 0.1\n'
        "[energy_pj]\nmultiply = 3.0\nadd = 1.0\n[sram_pj]\n8 = 5.0\n"
    )
    with pytest.raises(ValueError, match=r"bare\.toml' has no area"):
        estimated_pe_area_ratio(str(bare))


@settings(max_examples=30)
@given(matmuls, st.integers(0, 99))
def test_zero_gating_of_a_pair_saves_energy_only(geometry, seed):
    operands = [
        with_values(kind, geometry, seed)
        for kind in (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
    ]
    plain = InterGrad(4, 4).cost_pair(*operands)
    gated = InterGrad(4, 4, zero_gating=True).cost_pair(*operands)
    assert gated.cycles == plain.cycles
    assert gated.multiplies == sum(p.counts.valid for p in operands)
    assert gated.details["zero_multiplies"] == plain.multiplies - gated.multiplies
    assert "zero_multiplies" not in plain.details  # it reads no value
    assert gated.energy_pj <= plain.energy_pj


def test_a_pair_is_the_two_gradients_of_one_layer():
    input_grad, weight_grad = pair(FC)
    machine = InterGrad(4, 4)
    with pytest.raises(ValueError, match="got weight_grad and input_grad"):
        machine.cost_pair(weight_grad, input_grad)
    other = LayerProduct(Product.WEIGHT_GRAD, MatmulGeometry(1, 2, 3))
    with pytest.raises(ValueError, match="of one layer"):
        machine.cost_pair(input_grad, other)
    gated = InterGrad(4, 4, zero_gating=True)
    with pytest.raises(ValueError, match="needs the operands"):
        gated.cost_pair(input_grad, weight_grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, r"rows=0\): must be an integer >= 1"),
        ({"columns": -1}, r"columns=-1\)"),
        ({"drain": "never"}, "unknown drain 'never'"),
        ({"pe_area_ratio": 0.5}, r"pe_area_ratio=0.5\): must be a number >= 1"),
        ({"buffers": Buffers(input_kib=1)}, "at least 8 KiB"),
    ],
)
def test_bad_parameters_say_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        InterGrad(**options)
