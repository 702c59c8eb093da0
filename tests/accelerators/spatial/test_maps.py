"""Nests, maps, legality and closed forms against enumeration, and counts of all maps."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from accelerator_oracles import GEOMETRIES, geometries
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.accelerators.spatial import (
    Access,
    LoopNest,
    SpaceTimeMap,
    legal,
    mappings,
)
from elision.accelerators.spatial.classes import dataflow, pair_class
from elision.accelerators.spatial.derived import (
    elements,
    interval,
    links,
    makespan,
    ports,
    projection,
    storage,
    touched,
    utilisation,
)
from elision.accelerators.spatial.integers import adjugate, determinant, dot, kernel
from elision.accelerators.spatial.legality import collision, untouched
from elision.products import (
    Conv2dGeometry,
    ConvTranspose2dGeometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)

BOX = LoopNest.matmul(3, 5, 4)
CONV = Conv2dGeometry(2, 3, 7, 6, 4, (3, 2), (1, 2), (1, 0), (1, 2))
KINDS = tuple(Product)


def matrices(entries):
    """Every non-singular 3x3 matrix."""
    rows = list(itertools.product(entries, repeat=3))
    for matrix in itertools.product(rows, repeat=3):
        if determinant(matrix):
            yield matrix


def test_there_are_174_maps_of_zeros_and_ones() -> None:
    sizes = Counter(abs(determinant(m)) for m in matrices((0, 1)))
    assert sizes == {1: 168, 2: 6}


@pytest.mark.slow
def test_there_are_11808_maps_of_signs() -> None:
    found = [(abs(determinant(m)), min(m[2]) >= 0) for m in matrices((-1, 0, 1))]
    assert Counter(size for size, _ in found) == {1: 6960, 2: 3792, 3: 576, 4: 480}
    assert sum(forwards for _, forwards in found) == 3144


def test_there_are_393_maps_up_to_symmetry_in_19_classes() -> None:
    found = list(mappings(BOX))
    assert len(found) == 393
    assert sum(abs(determinant(m.map.matrix(BOX))) == 1 for m in found) == 261
    assert len({m.letters for m in found}) == 19
    # The symmetries of a plane leave no map as it is.
    assert len(list(mappings(BOX, up_to_symmetry=False))) == 8 * 393


def test_42_maps_are_on_a_mesh() -> None:
    found = [m for m in mappings(BOX) if legal(BOX, m)]
    assert [m.map for m in found] == [m.map for m in mappings(BOX, hops="mesh")]
    assert len(found) == 42
    assert sum(abs(determinant(m.map.matrix(BOX))) == 1 for m in found) == 36
    several = dict.fromkeys(("MSS", "SMS", "SSM"), 5) | {"SSS": 3}
    several |= dict.fromkeys(("MMS", "MSM", "SMM"), 4)
    once = {
        "".join(word)
        for word in itertools.product("SMT", repeat=3)
        if word.count("T") == 1
    }
    assert Counter(m.letters for m in found) == several | dict.fromkeys(once, 1)


def test_12_maps_have_loops_for_sides_and_skews_of_one() -> None:
    units = [BOX.unit(loop) for loop in BOX.loops]
    found = [m for m in mappings(BOX, entries=(0, 1)) if set(m.space) <= set(units)]
    plain = [m for m in found if m.map.time_row(BOX)[_stay(m)] == 1]
    assert Counter(m.letters.index("T") for m in plain) == {0: 4, 1: 4, 2: 4}
    assert len({m.letters for m in plain}) == 12


def _stay(m):
    """The loop that is no side."""
    return next(n for n in range(3) if not any(row[n] for row in m.space))


def test_lines_have_12_maps_of_a_matrix_product() -> None:
    found = list(mappings(BOX, dimensions=1))
    assert len(found) == 12
    for m in found:
        (row,) = m.map.space_rows(BOX)
        side = row.index(1)
        skew = m.map.time_row(BOX)[side]
        inside = [n for loop, n in enumerate(BOX.extents) if loop != side]
        cycles = math.prod(inside) + skew * (BOX.extents[side] - 1)
        assert makespan(BOX, m.map) == cycles


@pytest.mark.slow
def test_a_convolution_has_10080_maps_with_loops_for_sides() -> None:
    nest = LoopNest.of(Product.FORWARD, CONV)
    assert sum(1 for _ in mappings(nest, hops="any")) == 21 * 120 * 4


def test_pairs_of_loops_fall_into_five_classes_and_the_diagonal() -> None:
    nest = LoopNest.of(Product.FORWARD, CONV)
    pairs = list(itertools.combinations(nest.loops, 2))
    classes = Counter(pair_class(nest, pair) for pair in pairs)
    assert len(pairs) == 21
    assert classes == {
        "grad_output stays": 3,
        "weight stays": 3,
        "input stays": 7,
        "input on diagonals": 2,
        "weight shared": 3,
        "grad_output shared": 3,
    }
    grouped = LoopNest.of(Product.FORWARD, replace(CONV, in_channels=4, groups=2))
    assert pair_class(grouped, ("g", "p")) == "groups side by side"
    inner = Counter(
        tensor
        for pair in pairs
        for loop in nest.loops
        if loop not in pair
        for tensor in nest.tensors
        if not nest.indexes(tensor, loop)
    )
    assert inner["weight"] == 45
    assert inner["grad_output"] == 45
    assert inner["input"] == 15


@pytest.mark.parametrize(
    ("space", "count"),
    [
        (("i", "j"), 15),
        (("k", "j"), 20),
        (("k", "i"), 12),
        (((1, 0, 1), (0, 1, -1)), 36),
        (((1, 0, -1), (0, 1, -1)), 36),
    ],
)
def test_the_box_of_3_by_5_by_4(space, count) -> None:
    map = SpaceTimeMap(space, (1, 1, 1))
    assert elements(BOX, map) == count
    assert makespan(BOX, map) == 10
    assert utilisation(BOX, map) == 60 / (10 * count)


def test_a_hexagonal_array_works_in_every_cycle_or_every_third() -> None:
    hexagonal = {d: SpaceTimeMap(((1, 0, -d), (0, 1, -d)), (1, 1, 1)) for d in (1, -1)}
    assert projection(BOX, hexagonal[1]) == (1, 1, 1)
    assert projection(BOX, hexagonal[-1]) == (1, 1, -1)
    assert interval(BOX, hexagonal[1]) == 3
    assert interval(BOX, hexagonal[-1]) == 1
    for m, n, k in itertools.product(range(1, 6), repeat=3):
        nest = LoopNest.matmul(m, n, k)
        whole = m * n + n * k + m * k - m - n - k + 1
        assert {elements(nest, map) for map in hexagonal.values()} == {whole}


ILLEGAL = {
    "maps to zero": (SpaceTimeMap(("i", "j"), (1, 1, 0)), "L3", ((0, 0, 0), (0, 0, 1))),
    "backwards": (SpaceTimeMap(("i", "j"), (1, 1, -1)), "L2", (0, 0, 1)),
    "hop": (SpaceTimeMap(({"i": 2}, "j"), (1, 1, 1)), "L4", (1, 0, 0)),
    "conflict": (SpaceTimeMap(("i", "i"), (1, 1, 1)), "L1", ((0, 0, 1), (0, 1, 0))),
    "wrong chain": (
        SpaceTimeMap(("i", "j"), (1, 1, 1), chains={"A": ((1, 0, 0),)}),
        "L7",
        (1, 0, 0),
    ),
}


@pytest.mark.parametrize(("map", "rule", "witness"), ILLEGAL.values(), ids=ILLEGAL)
def test_what_is_illegal_names_its_rule_and_a_witness(map, rule, witness) -> None:
    verdict = legal(BOX, map)
    assert not verdict
    assert (verdict.rule, verdict.witness) == (rule, witness)
    with pytest.raises(ValueError, match=f"rule {rule}: "):
        verdict.check()


def test_two_points_that_collide_are_both_named() -> None:
    reason = legal(BOX, ILLEGAL["conflict"][0]).reason
    assert "(i=0, j=0, k=1) and (i=0, j=1, k=0)" in reason
    assert "PE (0, 0) in cycle 1" in reason


def test_a_slow_adder_needs_independent_sums_between() -> None:
    map = SpaceTimeMap.keeping(BOX, "C")
    assert legal(BOX, map, latency=1)
    assert legal(BOX, map, latency=2).rule == "L2"
    apart = SpaceTimeMap(("i",), {"k": 5, "j": 1, "i": 1})
    assert legal(BOX, apart, latency=5)
    assert legal(BOX, apart, latency=6).rule == "L2"


def test_the_fan_rule_turns_round_with_the_product() -> None:
    forward = LoopNest.of(Product.FORWARD, CONV)
    gradient = LoopNest.of(Product.INPUT_GRAD, CONV)
    map = SpaceTimeMap.keeping(forward, "weight")
    fans = {"input": "predecessor", "grad_output": "successor"}
    stated = SpaceTimeMap(map.space, map.time, fans=fans)
    assert legal(forward, stated, hops="any")
    verdict = legal(gradient, stated, hops="any")
    assert verdict.rule == "L5"
    assert "grad_output" in verdict.reason or "input" in verdict.reason


def test_outputs_with_an_empty_sum_must_be_cleared() -> None:
    sparse = Conv2dGeometry(1, 2, 6, 7, 3, kernel=1, stride=2)
    nest = LoopNest.of(Product.INPUT_GRAD, sparse)
    map = SpaceTimeMap.keeping(nest, "weight")
    assert legal(nest, map, hops="any")
    verdict = legal(nest, map, hops="any", cleared=False)
    assert (verdict.rule, verdict.witness) == ("L6", (0, 0, 0, 1))
    assert not untouched(LoopNest.of(Product.FORWARD, sparse)).any()


rows_of_3 = st.tuples(*[st.integers(-2, 3)] * 3)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.integers(1, 4)] * 3),
    st.lists(rows_of_3, min_size=1, max_size=2),
    st.tuples(*[st.integers(0, 6)] * 3),
)
def test_a_collision_is_found_wherever_there_is_one(extents, space, time) -> None:
    nest = LoopNest.matmul(*extents)
    map = SpaceTimeMap(tuple(space), time)
    seen: dict[tuple[int, ...], tuple[int, ...]] = {}
    collides = False
    for z in np.ndindex(*extents):
        place = tuple(dot(row, z) for row in map.matrix(nest))
        collides |= place in seen
        seen[place] = z
    found = collision(nest, map)
    assert (found is not None) == collides
    if found is not None:
        first, second = (tuple(dot(row, z) for row in map.matrix(nest)) for z in found)
        assert first == second
        assert found[0] != found[1]
        for z in found:
            assert all(0 <= i < n for i, n in zip(z, extents, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 4), max_size=3))
def test_a_kernel_is_a_basis_of_all_that_is_mapped_to_zero(rows) -> None:
    basis = kernel(tuple(rows), 4)
    rank = np.linalg.matrix_rank(np.array(rows)) if rows else 0
    assert len(basis) == 4 - rank
    for d in basis:
        assert not any(dot(row, d) for row in rows)
        assert math.gcd(*d) == 1
    for z in itertools.product(range(-2, 3), repeat=4):
        if basis and not any(dot(row, z) for row in rows):
            parts, *_ = np.linalg.lstsq(
                np.array(basis, float).T, np.array(z), rcond=None
            )
            assert np.allclose(np.round(parts) @ np.array(basis), z)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.tuples(*[st.integers(-4, 4)] * 3)] * 3))
def test_the_adjugate_is_the_inverse_times_the_determinant(matrix) -> None:
    whole = np.array(adjugate(matrix)) @ np.array(matrix)
    assert (whole == determinant(matrix) * np.eye(3, dtype=int)).all()


def test_the_rows_that_a_tile_touches_are_counted_exactly() -> None:
    cases = wide = 0
    for p, r, t, d in itertools.product(
        range(1, 8), range(1, 6), (1, 2, 3, 4), (1, 2, 3)
    ):
        nest = LoopNest({"p": p, "r": r}, {"X": (f"{t}*p + {d}*r",), "Y": ("p",)}, "Y")
        rows = {t * i + d * j for i in range(p) for j in range(r)}
        assert touched(nest, "X") == len(rows)
        cases += 1
        wide += len(rows) != t * (p - 1) + d * (r - 1) + 1
    assert (cases, wide) == (420, 252)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.sampled_from(KINDS))
def test_a_product_touches_what_its_nest_says(geometry, kind) -> None:
    nest = LoopNest.of(kind, geometry)
    met = {tensor: set() for tensor in nest.tensors}
    for z in np.ndindex(*nest.extents):
        for tensor in nest.tensors:
            element = nest.access(tensor).at(z)
            if nest.access(tensor).holds(element):
                met[tensor].add(element)
    for tensor in nest.tensors:
        assert touched(nest, tensor) == len(met[tensor])
        for d in nest.reuse_vectors(tensor):
            assert not any(dot(row, d) for row in nest.access(tensor).rows)
    assert nest.iterations == geometry.dense_macs
    lost = {tuple(map(int, e)) for e in np.argwhere(untouched(nest))}
    shape = nest.tensor_shape(nest.output)
    assert lost == set(np.ndindex(*shape)) - met[nest.output]


def test_the_nest_of_a_product_is_named_by_its_operands() -> None:
    for kind in KINDS:
        for geometry in (*GEOMETRIES.values(), MatmulGeometry(4, 9, 5, 2)):
            nest = LoopNest.of(kind, geometry)
            assert nest == LoopNest.of(LayerProduct(kind, geometry))
            assert nest.output == kind.absent
            assert set(nest.inputs) == set(kind.operands)
            for tensor in nest.tensors:
                size = math.prod(geometry.shape_of(tensor))
                assert math.prod(nest.tensor_shape(tensor)) == size


def test_a_transposed_convolution_is_the_nest_of_what_it_transposes() -> None:
    layer = ConvTranspose2dGeometry.of((1, 3, 4, 5), (3, 2, 3, 3), stride=2, padding=1)
    nest = LoopNest.of(Product.FORWARD, layer)
    own = LoopNest.of(Product.INPUT_GRAD, layer.convolution)
    assert nest.loops == own.loops
    assert nest.output == "grad_output"
    assert nest.access("grad_output") == own.access("input")
    assert nest.access("input") == own.access("grad_output")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tensor", ["input", "weight", "grad_output"])
def test_a_tensor_can_be_kept_in_every_product(tensor, kind) -> None:
    for geometry in (CONV, Conv2dGeometry(1, 4, 6, 6, 4, 3, groups=2)):
        nest = LoopNest.of(kind, geometry)
        map = SpaceTimeMap.keeping(nest, tensor)
        assert legal(nest, map)
        assert pair_class(nest, map.sides(nest)) == f"{tensor} stays"
        role = (
            "output"
            if tensor == nest.output
            else tensor.replace("grad_output", "gradient")
        )
        assert dataflow(nest, map).startswith(f"{role}-stationary (")


def test_sides_are_those_of_the_systolic_dataflows() -> None:
    for tensor, space in {"A": ("k", "i"), "B": ("k", "j"), "C": ("i", "j")}.items():
        assert SpaceTimeMap.keeping(BOX, tensor).space == space


def test_a_latency_hiding_map_stores_its_independent_sums() -> None:
    loops = {"K": 3, "ii": 2, "jj": 5, "iii": 4, "jjj": 4}
    accesses = {
        "A": ("K", "4*ii + iii"),
        "B": ("K", "4*jj + jjj"),
        "C": ("4*ii + iii", "4*jj + jjj"),
    }
    nest = LoopNest(loops, accesses, "C")
    map = SpaceTimeMap(("iii", "jjj"), {"K": 10, "ii": 5, "jj": 1, "iii": 1, "jjj": 1})
    assert storage(nest, map, "C") == 10
    assert ports(nest, map, "C") == 16
    assert ports(nest, map, "A") == 4


def test_a_double_projection_has_a_register_for_every_cycle_of_delay() -> None:
    """T2SP's example: t1 = 2i + 3j + k and t2 = 2i + j, of 28 values, on ten elements."""
    nest = LoopNest.matmul(10, 10, 10)
    time = {"i": 28 * 2 + 2, "j": 28 * 3 + 1, "k": 28}
    map = SpaceTimeMap(("k",), time)
    assert legal(nest, map)
    assert elements(nest, map) == 10
    assert makespan(nest, map) == 1540
    delays = [link.delay for t in "BAC" for link in links(nest, map, t)]
    assert delays == [58, 85, 28]


WRONG = {
    "loop of a map": (
        lambda: SpaceTimeMap(("m", "j"), "k").matrix(BOX),
        "known: i, j, k",
    ),
    "tensor": (lambda: BOX.reuse_vectors("D"), "known: A, B, C, output"),
    "loop": (lambda: BOX.unit("x"), "unknown loop 'x'.*known: i, j, k"),
    "index": (lambda: Access.parse(("i*j",), {"i": 2, "j": 2}), "index 'i\\*j'"),
    "extent": (lambda: LoopNest.matmul(0, 1, 1), "integer >= 1"),
    "row": (lambda: SpaceTimeMap(((1, 0), (0, 1)), (1, 1)).matrix(BOX), "3 entries"),
    "no space": (lambda: SpaceTimeMap((), "k"), "a row for each dimension"),
    "fraction": (lambda: SpaceTimeMap(((0.5, 0, 0),), "k"), "must have integers"),
    "links": (
        lambda: legal(BOX, SpaceTimeMap.keeping(BOX, "A"), hops="torus"),
        "known: mesh, diagonal, any",
    ),
    "dimensions": (lambda: list(mappings(BOX, dimensions=3)), r"\[1, 2\]"),
    "no geometry": (lambda: LoopNest.of(Product.FORWARD), "give the layer's geometry"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_answered_with_what_is_allowed(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
