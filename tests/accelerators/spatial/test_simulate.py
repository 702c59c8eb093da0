"""Arrays run value by value: against torch, the walk of the nest, and the closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from accelerator_oracles import GEOMETRIES
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.accelerators.spatial import LoopNest, SpaceTimeMap, legal, mappings
from elision.accelerators.spatial.derived import (
    elements,
    interval,
    makespan,
    ports,
    touched,
)
from elision.accelerators.spatial.integers import determinant, minors
from elision.accelerators.spatial.simulate import simulate, walk
from elision.products import OPERANDS, Conv2dGeometry, Product

KINDS = tuple(Product)

#: All extents differ where they can, so that exchanged indices show.
PADDED = Conv2dGeometry(1, 2, 5, 6, 3, (2, 3), (2, 1), (1, 0), (1, 2))
PLAIN = Conv2dGeometry(2, 2, 4, 4, 1, (2, 3))


def integers(nest, seed=0):
    rng = np.random.default_rng(seed)
    return {t: rng.integers(-9, 10, nest.tensor_shape(t)) for t in nest.inputs}


def expected(nest, kind, geometry, operands):
    """The product by torch, in the nest's shapes."""
    values = [
        operands[name].reshape(geometry.shape_of(name)).astype(np.float64)
        for name in kind.operands
    ]
    result = geometry.compute(kind, *(torch.from_numpy(v) for v in values))
    return result.numpy().reshape(nest.tensor_shape(nest.output))


def check_counts(run, nest, map):
    assert run.cycles == makespan(nest, map)
    assert run.elements == elements(nest, map)
    assert run.macs == nest.iterations
    for tensor in nest.tensors:
        counts = run.writes if tensor == nest.output else run.reads
        assert counts[tensor] == touched(nest, tensor)
        assert run.peak[tensor] <= ports(nest, map, tensor)


def with_loops_for_sides(nest, sides, skews, order):
    time, weight = dict(zip(sides, skews, strict=True)), 1
    for loop in reversed(order):
        time[loop] = weight
        weight *= nest.loops[loop]
    return SpaceTimeMap(tuple(sides), time)


def test_all_393_maps_multiply_a_ragged_box() -> None:
    nest = LoopNest.matmul(3, 4, 2)
    operands = integers(nest)
    count = 0
    for mapping in mappings(nest):
        run = simulate(nest, mapping.map, operands)
        assert (run.values == operands["A"] @ operands["B"]).all()
        check_counts(run, nest, mapping.map)
        count += 1
    assert count == 393


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.integers(0, 392), st.integers(0, 99))
def test_a_simulation_counts_what_a_walk_counts(extents, which, seed) -> None:
    nest = LoopNest.matmul(*extents)
    mapping = MAPS[which]
    operands = integers(nest, seed)
    fast = simulate(nest, mapping.map, operands)
    slow = walk(nest, mapping.map, operands)
    assert (fast.values == slow.values).all()
    for name in ("cycles", "elements", "reads", "writes", "peak", "macs"):
        assert getattr(fast, name) == getattr(slow, name), name


MAPS = list(mappings(LoopNest.matmul(3, 4, 2)))


def test_an_element_works_in_every_cycle_of_its_interval() -> None:
    nest = LoopNest.matmul(4, 4, 4)
    for mapping in MAPS[::7]:
        matrix = mapping.map.matrix(nest)
        busy: dict[tuple[int, ...], list[int]] = {}
        for z in np.ndindex(*nest.extents):
            *place, time = (int(np.dot(row, z)) for row in matrix)
            busy.setdefault(tuple(place), []).append(time)
        steps = {
            abs(b - a)
            for times in busy.values()
            for a, b in itertools.pairwise(sorted(times))
        }
        assert steps <= {interval(nest, mapping.map)}
        common = math.gcd(*minors(matrix[:-1]))
        assert abs(determinant(matrix)) == interval(nest, mapping.map) * common


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_of_loops_computes_a_convolution(kind) -> None:
    rng = np.random.default_rng(1)
    for geometry in (PADDED, PLAIN):
        nest = LoopNest.of(kind, geometry)
        operands = integers(nest)
        truth = expected(nest, kind, geometry, operands)
        for sides in itertools.combinations(nest.loops, 2):
            order = list(rng.permutation([n for n in nest.loops if n not in sides]))
            for skews in itertools.product((0, 1), repeat=2):
                map = with_loops_for_sides(nest, sides, skews, order)
                assert legal(nest, map, hops="any")
                run = simulate(nest, map, operands)
                assert (run.values == truth).all(), (sides, skews, order)
                check_counts(run, nest, map)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", GEOMETRIES)
def test_what_is_kept_does_not_change_the_product(case, kind) -> None:
    geometry = GEOMETRIES[case]
    nest = LoopNest.of(kind, geometry)
    operands = integers(nest)
    truth = expected(nest, kind, geometry, operands)
    for tensor in nest.tensors:
        map = SpaceTimeMap.keeping(nest, tensor)
        run = simulate(nest, map, operands)
        assert (run.values == truth).all()
        check_counts(run, nest, map)


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_of_a_convolution_counts_the_same(kind) -> None:
    small = Conv2dGeometry(1, 2, 4, 3, 2, (2, 2), (2, 1), (1, 0))
    nest = LoopNest.of(kind, small)
    operands = integers(nest)
    for sides, skews in (
        (("k", "c"), (1, 1)),
        (("p", "r"), (1, 0)),
        (("c", "r"), (0, 0)),
    ):
        order = [loop for loop in nest.loops if loop not in sides]
        map = with_loops_for_sides(nest, sides, skews, order)
        fast, slow = (run(nest, map, operands) for run in (simulate, walk))
        assert (fast.values == slow.values).all()
        for name in ("cycles", "elements", "reads", "writes", "peak", "macs"):
            assert getattr(fast, name) == getattr(slow, name), name


def test_the_wrong_fan_rule_counts_sums_twice() -> None:
    wrong = cases = 0
    for kind in KINDS:
        nest = LoopNest.of(kind, Conv2dGeometry(1, 2, 3, 3, 2, (2, 2)))
        operands = integers(nest)
        for sides in itertools.combinations(nest.loops, 2):
            order = [loop for loop in nest.loops if loop not in sides]
            right = with_loops_for_sides(nest, sides, (1, 1), order)
            stated = SpaceTimeMap(
                right.space, right.time, fans={nest.output: "predecessor"}
            )
            assert legal(nest, stated, hops="any").rule == "L5"
            truth = simulate(nest, right, operands).values
            wrong += (walk(nest, stated, operands).values != truth).any()
            cases += 1
    assert wrong == cases


def test_row_stationary_touches_every_value_once() -> None:
    geometry = Conv2dGeometry(1, 2, 5, 3, 2, (3, 2))
    touches = {}
    for kind in KINDS:
        nest = LoopNest.of(kind, geometry)
        assert nest.extents == (1, 2, 2, 3, 2, 3, 2)
        order = ["n", "k", "c", "q", "s"]
        map = with_loops_for_sides(nest, ("p", "r"), (1, 1), order)
        operands = integers(nest)
        run = simulate(nest, map, operands)
        assert (run.values == expected(nest, kind, geometry, operands)).all()
        counts = run.reads + run.writes
        touches[kind] = (run.cycles, *(counts[t] for t in OPERANDS))
    assert set(touches.values()) == {(20, 30, 24, 12)}


def test_a_map_of_one_product_is_a_map_of_all_three() -> None:
    nest = LoopNest.matmul(3, 4, 2)
    for mapping in (m for m in MAPS if legal(nest, m.map)):
        seen = []
        for output in "CAB":
            turned = nest.with_output(output)
            run = simulate(turned, mapping.map, integers(turned))
            touches = run.reads + run.writes
            seen.append((run.cycles, run.elements, *(touches[t] for t in "ABC")))
        assert len(set(seen)) == 1


ILLEGAL = {
    "collides": SpaceTimeMap(("i", "i"), (1, 1, 1)),
    "backwards": SpaceTimeMap(("i", "j"), (1, 1, -1)),
    "strays": SpaceTimeMap(("i", "j"), (1, 1, 1), chains={"A": ((1, 0, 0),)}),
}


@pytest.mark.parametrize("map", ILLEGAL.values(), ids=ILLEGAL)
def test_an_illegal_map_is_caught_by_what_arrives(map) -> None:
    nest = LoopNest.matmul(3, 4, 2)
    assert not legal(nest, map)
    with pytest.raises(AssertionError):
        simulate(nest, map, integers(nest))


def test_operands_must_be_those_of_the_nest() -> None:
    nest = LoopNest.matmul(3, 4, 2)
    map = SpaceTimeMap.keeping(nest, "C")
    with pytest.raises(ValueError, match=r"give the values of A and B, got A"):
        simulate(nest, map, {"A": np.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"B has shape \(4, 2\).*needs \(2, 4\)"):
        simulate(nest, map, {"A": np.zeros((3, 2)), "B": np.zeros((4, 2))})


def test_a_tile_works_on_its_part_of_the_tensors() -> None:
    nest = LoopNest.of(Product.FORWARD, PADDED)
    operands = integers(nest)
    whole = expected(nest, Product.FORWARD, PADDED, operands)
    total = np.zeros_like(whole)
    for k, c in itertools.product(range(3), range(2)):
        tile = nest.tile({"k": k, "c": c}, {"k": 1, "c": 1})
        total += simulate(tile, SpaceTimeMap.keeping(tile, "weight"), operands).values
    assert (total == whole).all()
