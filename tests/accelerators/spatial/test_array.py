"""The spatial array: against systolic arrays, its own simulation, and events of its ports."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from accelerator_oracles import GEOMETRIES, geometries, random_product
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.accelerators import Systolic
from elision.accelerators.spatial import LoopNest, SpaceTimeMap, SpatialArray
from elision.accelerators.spatial.buffers import IoNetwork, Stage
from elision.accelerators.spatial.folding import FOLDS, Folding
from elision.accelerators.spatial.pair import GradientPair
from elision.accelerators.systolic.lowering import lower
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

KINDS = tuple(Product)
KEPT = {"ws": "B", "is": "A", "os": "C"}


def folding(m, k, n, rows, columns, kept, folds):
    nest = LoopNest.matmul(m, n, k)
    return Folding(nest, SpaceTimeMap.keeping(nest, kept), rows, columns, folds)


#: Options of a systolic array -> the folds that they are.
PLAIN = {
    ("ws", "overlapped", False): "drained",
    ("is", "overlapped", False): "drained",
    ("os", "explicit", False): "drained",
    ("os", "overlapped", False): "overlapped",
    ("ws", "overlapped", True): "overlapped",
    ("is", "overlapped", True): "overlapped",
}


@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_systolic_folds_are_a_special_case(options) -> None:
    flow, drain, preload = options
    sizes = ((1, 1, 1), (7, 3, 5), (16, 40, 9))
    for (m, k, n), rows, columns in itertools.product(sizes, (1, 4, 6), (2, 5)):
        machine = Systolic(rows, columns, flow, drain=drain, preload=preload)
        own = folding(m, k, n, rows, columns, KEPT[flow], PLAIN[options])
        streamed = {"ws": m, "is": n, "os": k}[flow]
        assert own.streamed == streamed
        folds = own.count
        first = rows if preload else 0
        assert own.cycles == folds * machine.fold_cycles(streamed) + first


@settings(max_examples=60, deadline=None)
@given(
    geometries(),
    st.sampled_from(KINDS),
    st.sampled_from(list(PLAIN)),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_a_systolic_array_costs_the_same(
    geometry, kind, options, rows, columns
) -> None:
    flow, drain, preload = options
    systolic = Systolic(rows, columns, flow, drain=drain, preload=preload)
    gemm = lower(kind, geometry)
    tensor = {"input": "input", "weight": "weight", "output": "grad_output"}
    kept = dict(zip(("is", "ws", "os"), gemm.families, strict=True))[flow]
    array = SpatialArray(
        rows=rows, columns=columns, keep=tensor[kept], folds=PLAIN[options]
    )
    product = LayerProduct(kind, geometry)
    expected, cost = systolic.cost(product), array.cost(product)
    for name in ("cycles", "multiplies", "multiplier_slots", "accesses", "details"):
        assert getattr(cost, name) == getattr(expected, name), name
    assert cost.energy_pj == pytest.approx(expected.energy_pj)
    assert cost.area_mm2 == expected.area_mm2


TABLE = {
    (3136, 576, 64): (116_280, 278_712, 125_048, 131_320, 112_990, 112_990, 112_990),
    (3136, 64, 576): (116_280, 131_320, 222_264, 278_712, 112_990, 112_990, 112_990),
    (576, 3136, 64): (131_320, 278_712, 115_128, 116_280, 112_990, 112_990, 112_990),
    (32, 1024, 1000): (129_024, 35_008, 34_752, 35_776, 32_862, 32_094, 32_862),
}


@pytest.mark.parametrize(("shape", "cycles"), TABLE.items(), ids=str)
def test_what_stays_matters_only_where_folds_are_drained(shape, cycles) -> None:
    ways = [("drained", "B"), ("drained", "A"), ("overlapped", "C"), ("drained", "C")]
    ways += [("pipelined", tensor) for tensor in "BAC"]
    found = [folding(*shape, 32, 32, kept, folds).cycles for folds, kept in ways]
    assert tuple(found) == cycles


def pipelined_by_port(rows, columns, streamed, folds, period):
    """Cycles of pipelined weight-stationary folds, from events on every port and PE."""
    shadow: dict[tuple[int, int, int], int] = {}
    loads: Counter[tuple[int, int]] = Counter()
    busy: set[tuple[int, int, int]] = set()
    leaving: set[tuple[int, int]] = set()
    last = 0
    for f, r, c in itertools.product(range(folds), range(rows), range(columns)):
        entered = rows + period * f + c - 1 - r
        loads[c, entered] += 1
        shadow[f, r, c] = rows + period * f + c - 1
        # It passes a row a cycle, so that the last row's word must enter first.
        assert shadow[f, r, c] - entered == r
        for t in range(streamed):
            cycle = rows + period * f + r + c + t
            assert cycle > shadow[f, r, c]
            if f:  # the next value is in its shadow only when this one is taken
                assert shadow[f, r, c] >= rows + period * (f - 1) + c
            assert (r, c, cycle) not in busy
            busy.add((r, c, cycle))
            if r == rows - 1:
                assert (c, cycle) not in leaving
                leaving.add((c, cycle))
            last = max(last, cycle)
    assert set(loads.values()) == {1}
    return last + 1


def test_pipelined_folds_port_by_port() -> None:
    cases = 0
    for rows, columns, streamed, folds in itertools.product(
        (1, 2, 3, 5), (1, 2, 4), (1, 2, 3, 7), (1, 2, 4)
    ):
        nest = LoopNest.matmul(streamed, columns * folds, rows)
        own = Folding(nest, SpaceTimeMap.keeping(nest, "B"), rows, columns, "pipelined")
        period = max(streamed, rows)
        assert own.period == period
        assert own.cycles == pipelined_by_port(rows, columns, streamed, folds, period)
        cases += 1
    assert cases == 144


def expected(product):
    return product.compute().numpy()


def whole(product):
    """The product with integer operands."""
    first, second = (v.astype(np.int64) for v in (product.first, product.second))
    return LayerProduct(product.kind, product.geometry, first, second)


@pytest.mark.parametrize("form", ["lowered", "direct"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "case", ["same", "stride with a rest", "stride and dilation", "uneven", "depthwise"]
)
def test_a_simulation_computes_the_product_in_the_cycles_of_its_cost(
    case, kind, form
) -> None:
    geometry = replace(GEOMETRIES[case], batch=1)
    product = whole(random_product(np.random.default_rng(5), kind, geometry, 0.8))
    for keep, folds in zip(("input", "weight", "grad_output"), FOLDS, strict=False):
        array = SpatialArray(rows=3, columns=4, keep=keep, form=form, folds=folds)
        run = array.simulate(product)
        assert run.values.dtype == np.int64
        assert (run.values == expected(product)).all()
        folded = array.folding(product)
        assert run.cycles == folded.cycles
        assert run.elements <= 12
        touches = run.reads + run.writes
        for tensor in folded.nest.accesses:
            assert touches[tensor] == folded.words(tensor)


@pytest.mark.parametrize("kept", ["A", "B", "C"])
@pytest.mark.parametrize("folds", [f for f in FOLDS if f != "none"])
def test_a_matrix_product_in_ragged_folds(kept, folds) -> None:
    names = dict(zip("ABC", ("input", "weight", "grad_output"), strict=True))
    for sizes in ((5, 7, 6), (2, 9, 3), (1, 1, 1)):
        product = random_product(
            np.random.default_rng(1), Product.FORWARD, MatmulGeometry(*sizes), 1.0
        )
        array = SpatialArray(rows=3, columns=2, keep=names[kept], folds=folds)
        run = array.simulate(product)
        assert np.allclose(run.values, expected(product))
        assert run.cycles == array.cost(product).cycles
        assert array.timing((product,)).cycles == run.cycles


def test_maps_that_mix_loops_run_whole_or_not_at_all() -> None:
    hexagonal = SpaceTimeMap(((1, 0, -1), (0, 1, -1)), (1, 1, 1))
    product = random_product(
        np.random.default_rng(2), Product.FORWARD, MatmulGeometry(3, 4, 5), 1.0
    )
    nest = LoopNest.of(product)
    run = SpatialArray(hexagonal, 6, 8).simulate(product)
    assert np.allclose(run.values, expected(product))
    assert run.cycles == SpatialArray(hexagonal, 6, 8).cost(product).cycles == 10
    assert run.elements == 36
    assert nest.extents == (3, 5, 4)
    with pytest.raises(ValueError, match=r"5x5 elements is smaller.*6x8 elements"):
        SpatialArray(hexagonal, 5, 5).cost(product)


def test_groups_are_passes_of_the_array() -> None:
    one = Conv2dGeometry(2, 1, 6, 6, 2, 3, 1, 1)
    many = Conv2dGeometry(2, 5, 6, 6, 10, 3, 1, 1, groups=5)
    for kind, keep, form in itertools.product(
        KINDS, ("input", "weight", "grad_output"), ("lowered", "direct")
    ):
        array = SpatialArray(rows=4, columns=4, keep=keep, form=form, folds="drained")
        single, grouped = (
            array.cost(LayerProduct(kind, geometry)) for geometry in (one, many)
        )
        assert grouped.cycles == 5 * single.cycles
        assert grouped.multiplies == 5 * single.multiplies
        for memory, words in grouped.accesses.items():
            if "sram" in memory:
                assert words == 5 * single.accesses[memory]


def test_a_map_of_a_convolution_is_cut_into_tiles() -> None:
    geometry = Conv2dGeometry(1, 3, 8, 7, 4, (3, 2))
    rows = {"n": 360, "k": 90, "c": 30, "q": 5, "s": 1, "p": 1, "r": 1}
    map = SpaceTimeMap(("r", "p"), rows)
    for kind in KINDS:
        product = whole(random_product(np.random.default_rng(3), kind, geometry, 0.9))
        array = SpatialArray(map, rows=3, columns=4)
        run = array.simulate(product)
        assert (run.values == expected(product)).all()
        assert run.cycles == array.cost(product).cycles
        assert array.dataflow(LoopNest.of(product)).startswith("row-stationary")


def test_a_map_of_a_layer_as_written_is_not_one_of_its_canonical_form() -> None:
    geometry = Conv2dGeometry(2, 3, 4, 5, 6, 1)  # a matrix product, of other loops
    for kind in KINDS:
        nest = LoopNest.of(kind, geometry)
        product = whole(random_product(np.random.default_rng(6), kind, geometry, 0.7))
        map = SpaceTimeMap.keeping(nest, "weight")
        run = SpatialArray(map, 3, 2).simulate(product)
        assert (run.values == expected(product)).all()
        assert run.cycles == SpatialArray(map, 3, 2).cost(product).cycles
        gated = SpatialArray(map, 3, 2, zero_gating=True).cost(product)
        assert gated.multiplies == product.counts.valid


def test_zeros_are_gated_in_energy_not_in_time() -> None:
    product = random_product(np.random.default_rng(4), KINDS[0], GEOMETRIES["same"])
    blind, gated = (
        SpatialArray(rows=4, columns=4, zero_gating=z) for z in (False, True)
    )
    plain, cost = blind.cost(product), gated.cost(product)
    assert cost.multiplies == product.counts.valid
    assert cost.multiplies + cost.details["zero_multiplies"] == plain.multiplies
    assert cost.cycles == plain.cycles
    assert cost.energy_pj < plain.energy_pj


def test_both_gradients_share_an_array_cycle_by_cycle() -> None:
    for rows, outputs, inputs in itertools.product((1, 2, 5, 6), (1, 3, 4), (1, 2, 4)):
        pair = GradientPair(MatmulGeometry(rows, inputs, outputs))
        assert pair.collision() is None
        assert pair.cycles == 2 * rows + outputs + inputs - 2
    assert GradientPair(MatmulGeometry(5, 4, 3)).cycles == 15
    late = GradientPair(MatmulGeometry(5, 4, 3), offset=2)
    assert late.collision() is not None


def test_what_an_array_does_with_each_tensor() -> None:
    nest = LoopNest.matmul(8, 8, 8)
    rows = SpatialArray(SpaceTimeMap.keeping(nest, "B"), 4, 4).describe(nest)
    assert [row.kind for row in rows] == ["systolic", "stationary", "systolic"]
    assert [row.hop for row in rows] == [(0, 1), (), (1, 0)]
    assert [row.ports for row in rows] == [4, 16, 4]
    assert [row.words for row in rows] == [128, 64, 128]
    assert [row.stored for row in rows] == [0, 1, 0]
    buses = SpatialArray(SpaceTimeMap(("i", "j"), {"k": 1}), 4, 4).describe(nest)
    assert [row.kind for row in buses] == ["multicast", "multicast", "stationary"]


def test_traffic_falls_to_each_tensor_once_where_buffers_hold_all() -> None:
    layer = Conv2dGeometry(1, 24, 10, 10, 40, 3)
    for form, kind in itertools.product(("direct", "lowered"), KINDS):
        cost = SpatialArray(rows=8, columns=8, form=form).cost(
            LayerProduct(kind, layer)
        )
        whole = sum(
            math.prod(layer.shape_of(t)) for t in ("input", "weight", "grad_output")
        )
        assert cost.accesses["dram.read"] + cost.accesses["dram.write"] == whole
        small = SpatialArray(rows=8, columns=8, form=form, buffers="1/1/1")
        tight = small.cost(LayerProduct(kind, layer))
        assert tight.accesses["dram.read"] > cost.accesses["dram.read"]


def test_io_networks_change_words_ports_and_ends() -> None:
    product = LayerProduct(Product.FORWARD, MatmulGeometry(16, 24, 8))
    nest = LoopNest.of(product)
    removed = IoNetwork(
        "input", (Stage("loader", removed=("j",)), Stage("feeder", removed=("j",)))
    )
    sent = IoNetwork(
        "input", (Stage("loader"), Stage("feeder", moves="scatter", along="i"))
    )
    gathered = IoNetwork(
        "grad_output",
        (Stage("drainer", removed=("k",), moves="gather", along="j"),),
    )
    for folds in ("drained", "pipelined", "overlapped"):
        plain = SpatialArray(rows=4, columns=4, keep="output", folds=folds)
        base = plain.cost(product)
        once = replace(plain, networks=(removed,)).cost(product)
        assert (once.cycles, once.accesses) == (base.cycles, base.accesses)
        array = replace(plain, networks=(sent, gathered))
        cost = array.cost(product)
        ends = 8 * (4 * 2 if folds == "drained" else 1)
        assert cost.cycles == base.cycles + ends
        assert array.timing((product,)).cycles == cost.cycles
        words = base.accesses["input_sram.read"]
        assert cost.accesses["input_sram.read"] == 4 * words
        assert cost.accesses["output_sram.write"] == base.accesses["output_sram.write"]
        ports = {row.tensor: row.ports for row in array.describe(nest)}
        assert ports == {"input": 1, "weight": 4, "grad_output": 4}
    wrong = IoNetwork("input", (Stage("loader", removed=("k",)),))
    with pytest.raises(ValueError, match=r"loader.remove\(k\): k indexes input"):
        replace(plain, networks=(wrong,)).cost(product)


WRONG = {
    "keep": (
        lambda: SpatialArray(keep="A"),
        "known: input, weight, grad_output, output",
    ),
    "folds": (lambda: SpatialArray(folds="at once"), "known: pipelined, overlapped"),
    "form": (lambda: SpatialArray(form="im2col"), "known: lowered, direct"),
    "rows": (lambda: SpatialArray(rows=0), r"SpatialArray\(rows=0\)"),
    "loops": (
        lambda: SpatialArray(SpaceTimeMap(("x", "j"), "k")).cost(
            LayerProduct(KINDS[0], MatmulGeometry(2, 3, 4))
        ),
        "unknown loop.*'x'",
    ),
    "too small": (
        lambda: SpatialArray(rows=2, columns=2, folds="none").cost(
            LayerProduct(KINDS[0], MatmulGeometry(2, 3, 4))
        ),
        "smaller than the unrolled loops k, j of a nest with i=2, j=4, k=3: 3x4",
    ),
    "blind": (
        lambda: SpatialArray().simulate(
            LayerProduct(KINDS[0], MatmulGeometry(2, 3, 4))
        ),
        "needs the operands",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_answered_with_what_is_allowed(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
