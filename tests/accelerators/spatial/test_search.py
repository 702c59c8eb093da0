"""The search: its maps compute the product, its limits hold, its front is one."""

import itertools

import numpy as np
import pytest
from accelerator_oracles import random_product

from elision.accelerators.spatial import LoopNest, SpatialArray, legal
from elision.accelerators.spatial.derived import letters
from elision.accelerators.spatial.search import (
    OBJECTIVES,
    Found,
    pareto,
    search,
    systolic_maps,
)
from elision.products import Conv2dGeometry, MatmulGeometry, Product

LAYER = Conv2dGeometry(1, 6, 8, 8, 9, (3, 1), 1, (1, 0))
SMALL = Conv2dGeometry(1, 2, 5, 4, 3, (3, 2), 1, (1, 0))


@pytest.mark.parametrize(
    "geometry", [SMALL, MatmulGeometry(3, 4, 2)], ids=["conv", "fc"]
)
def test_every_map_computes_all_three_products(geometry) -> None:
    nest = LoopNest.of(Product.FORWARD, geometry)
    maps = list(systolic_maps(nest))
    assert len(set(maps)) == len(maps)
    sides = {frozenset(map.space) for map in maps}
    assert {frozenset("ij"), frozenset("pk"), frozenset("gp")} & sides
    for number, map in enumerate(maps):
        assert legal(nest, map)
        assert "M" not in letters(nest, map)
        if number % 8 and geometry is SMALL:
            continue
        for kind in Product:
            product = random_product(np.random.default_rng(7), kind, geometry, 0.9)
            array = SpatialArray(map, rows=2, columns=3, folds="drained")
            run = array.simulate(product)
            assert np.array_equal(run.values, product.compute().numpy())
            assert run.cycles == array.cost(product).cycles


@pytest.fixture(scope="module")
def found() -> list[Found]:
    return search(LAYER, pes=8, sram_kib=96)


def test_limits_hold(found) -> None:
    for each in found:
        assert each.array.rows * each.array.columns == 8
        assert sum(each.array.memory.sizes_kib.values()) <= 96
    assert len({each.array.memory for each in found}) > 4


def test_cycles_wait_for_the_memory(found) -> None:
    slow = search(LAYER, pes=8, sram_kib=96, bandwidth=0.125, objective="cycles")
    fast = min(found, key=lambda each: each.cycles)
    assert slow[0].cycles > fast.cycles
    for each in (*found, *slow):
        assert each.cycles == each.cost.cycles + each.cost.stall_cycles


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_best_comes_first(objective) -> None:
    ordered = search(MatmulGeometry(32, 48, 16), pes=8, objective=objective)
    values = [OBJECTIVES[objective](each) for each in ordered]
    assert values == sorted(values)


def test_nothing_beats_the_front(found) -> None:
    front = pareto(found)
    for each in found:
        assert any(
            own.cycles <= each.cycles and own.energy_pj <= each.energy_pj
            for own in front
        )
    for a, b in itertools.combinations(front, 2):
        assert a.cycles < b.cycles
        assert a.energy_pj > b.energy_pj


def test_wrong_limits_name_what_is_allowed() -> None:
    layer = MatmulGeometry(4, 4, 4)
    with pytest.raises(ValueError, match="known: energy, cycles, edp"):
        search(layer, objective="area")
    with pytest.raises(ValueError, match=r"search\(pes=0\)"):
        search(layer, pes=0)
    with pytest.raises(ValueError, match=r"16 elements need at least 0\.375 KiB"):
        search(layer, pes=16, sram_kib=0.1)
