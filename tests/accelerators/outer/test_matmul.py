"""Matrix products on SCNN and ANT: every product of two values, one by one."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import z3
from accelerator_oracles import KINDS, ceil_div, random_product
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.accelerators import ACCELERATORS, Ant, InterGrad, OneSided, Scnn
from elision.accelerators.outer import planes
from elision.products import Arithmetic, LayerProduct, MatmulGeometry, Product

SIZE = st.integers(1, 7)


@st.composite
def matmuls(draw):
    """Any small batch of matrix products: empty, full, of one row, of one index."""
    sizes = draw(SIZE), draw(SIZE), draw(SIZE)
    geometry = MatmulGeometry(*sizes, batch=draw(st.integers(1, 3)))
    density = draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    return random_product(rng, draw(st.sampled_from(KINDS)), geometry, density)


def by_index(product):
    """Both operands with their values as (batch, summed, free)."""
    first, second = (
        np.asarray(v).reshape(product.geometry.batch, *v.shape[-2:])
        for v in product.operands.values()
    )
    if product.kind is Product.WEIGHT_GRAD:
        return first, second
    if product.kind is Product.INPUT_GRAD:
        return first.swapaxes(1, 2), second
    return first.swapaxes(1, 2), second.swapaxes(1, 2)


def tiles(product, tile):
    """Values ``(k, place, value)`` of two planes that meet, and the batch's entry."""
    for entry, (a, b) in enumerate(zip(*by_index(product), strict=True)):
        cut = [
            [
                [
                    (int(k), int(i) + at, m[k, i + at])
                    for k, i in zip(*np.nonzero(m[:, at : at + tile]), strict=True)
                ]
                for at in range(0, m.shape[1], tile)
            ]
            for m in (a, b)
        ]
        yield from ((entry, *pair) for pair in itertools.product(*cut))


@settings(max_examples=100, deadline=None)
@given(product=matmuls(), tile=st.integers(1, 4), n=st.integers(1, 4))
def test_all_products_of_two_tiles(product, tile, n):
    """The valid ones are the matrix product itself, the others are the RCPs."""
    result = np.zeros(product.result_shape).reshape(product.geometry.batch, -1)
    result = result.reshape(product.geometry.batch, *product.result_shape[-2:])
    formed = valid = cycles = 0
    for entry, left, right in tiles(product, tile):
        cycles += ceil_div(len(left), n) * ceil_div(len(right), n)
        for (k, m, a), (r, column, b) in itertools.product(left, right):
            formed += 1
            if k == r:
                valid += 1
                result[entry, m, column] += a * b
    assert np.array_equal(result.reshape(product.result_shape), product.compute())
    cost = Scnn(matmul_tile=tile, multipliers=n).cost(product)
    assert (cost.multiplies, cost.valid_multiplies) == (formed, valid)
    assert cost.details["busy_cycles"] == cycles
    matched = Scnn(multipliers=n).cost(product)
    assert (matched.multiplies, matched.redundant_multiplies) == (valid, 0)


@settings(max_examples=100, deadline=None)
@given(
    product=matmuls(),
    tile=st.integers(1, 4),
    n=st.integers(1, 4),
    group=st.integers(1, 5),
    window=st.integers(1, 6),
)
def test_ant_issues_the_indices_of_a_group(product, tile, n, group, window):
    issued = valid = closed = scanned = 0
    for _, left, right in tiles(product, tile):
        for at in range(0, len(left), group):
            values = left[at : at + group]
            low, high = values[0][0], values[-1][0]
            chosen = [r for r, _, _ in right if low <= r <= high]
            vectors = ceil_div(len(values), n)
            issued += len(values) * len(chosen)
            valid += sum(k == r for k, _, _ in values for r in chosen)
            closed += vectors * max(
                ceil_div(len(chosen), n), ceil_div(len(chosen), window)
            )
            scanned += vectors * ceil_div(len(chosen), min(n, window))
    for method, cycles in (("closed", closed), ("scan", scanned)):
        machine = Ant(
            matmul_tile=tile, multipliers=n, group=group, window=window, method=method
        )
        cost = machine.cost(product)
        assert (cost.multiplies, cost.valid_multiplies) == (issued, valid)
        assert valid == product.counts.valid, "a valid product was not issued"
        assert cost.details["busy_cycles"] == cycles
    if group == 1:
        assert issued == valid


def refute(facts, claim):
    """Search a counterexample of ``facts => claim``; None is a proof."""
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*facts, z3.Not(claim))
    verdict = solver.check()
    assert verdict != z3.unknown, solver.reason_unknown()
    return solver.model() if verdict == z3.sat else None


def test_tiles_of_any_size_are_proved():
    """Valid iff of one index; then the pair's output is its own, and it is in range."""
    K, M, N, k, r, low, high = z3.Ints("K M N k r low high")
    down, across = planes._index_axis(K), planes._tile_axis(M, N)
    facts = [k >= 0, k < K, r >= 0, r < K, low <= k, k <= high]
    first, last = down.reach(low, high)
    outputs = z3.And(k - r >= 0, k - r < down.outputs)
    assert refute(facts, outputs == (k == r)) is None
    assert refute([*facts, k == r], z3.And(first <= r, r <= last)) is None
    assert refute([*facts, k == r], z3.And(first + 1 <= r, r <= last)) is not None

    def pair(name):
        m, n = z3.Ints(f"m{name} n{name}")
        place = across.image_step * m + across.image_offset - across.kernel_step * n
        facts = [N >= 1, M >= 1, m >= 0, m < M, n >= 0, n < N]
        return SimpleNamespace(m=m, n=n, place=place, facts=facts)

    one, other = pair("1"), pair("2")
    claim = z3.And(one.place >= 0, one.place < across.outputs)
    assert refute(one.facts, claim) is None
    # One row further up is N outputs further on: the places are those of a matrix.
    step = [*one.facts, *other.facts, other.m == one.m + 1]
    assert refute([*step, one.n == other.n], other.place - one.place == N) is None
    same = [*one.facts, *other.facts, one.m == other.m, one.place == other.place]
    assert refute(same, one.n == other.n) is None


@pytest.mark.parametrize("tile", [None, 3])
def test_a_batch_is_its_products(tile):
    rng = np.random.default_rng(4)
    geometry, one = MatmulGeometry(4, 9, 5, batch=3), MatmulGeometry(4, 9, 5)
    machines = {name: machine() for name, machine in ACCELERATORS.items()}
    machines["one-sided"] = OneSided(side="first")  # not the whole batch's sparser one
    if tile:
        machines = {"scnn": Scnn(matmul_tile=tile), "ant": Ant(matmul_tile=tile)}
    for (name, machine), kind in itertools.product(machines.items(), KINDS):
        product = random_product(rng, kind, geometry)
        entries = [
            machine.cost(LayerProduct(kind, one, a, b))
            for a, b in zip(product.first, product.second, strict=True)
        ]
        cost = machine.cost(product)
        for count in ("multiplies", "valid_multiplies", "redundant_multiplies"):
            whole = getattr(cost, count)
            assert whole == sum(getattr(e, count) for e in entries), (name, count)
        assert max(e.cycles for e in entries) <= cost.cycles
        assert cost.cycles <= sum(e.cycles for e in entries) + len(entries)


def test_gradients_of_a_batch_interleave():
    kinds = Product.INPUT_GRAD, Product.WEIGHT_GRAD
    pairs = [
        InterGrad().cost_pair(*(LayerProduct(kind, geometry) for kind in kinds))
        for geometry in (MatmulGeometry(4, 9, 5), MatmulGeometry(4, 9, 5, batch=3))
    ]
    assert pairs[1].multiplies == 3 * pairs[0].multiplies
    assert pairs[0].cycles < pairs[1].cycles <= 3 * pairs[0].cycles


def test_a_tile_belongs_to_planes_of_pairs():
    with pytest.raises(ValueError, match="tiles belong to the mapping 'plane-pair'"):
        Scnn(mapping="planar", matmul_tile=4)
    for machine in (Scnn, Ant):
        with pytest.raises(ValueError, match="matmul_tile"):
            machine(matmul_tile=0)


@pytest.mark.parametrize("tile", [None, 4])
def test_the_image_of_a_matrix_product_is_its_first_operand(tile):
    """A gradient in bf16 is read in half the words wherever it is the image."""
    narrow = Arithmetic(first="bf16")
    ones = np.ones((4, 8), np.float32), np.ones((4, 2), np.float32)
    kind, geometry = Product.WEIGHT_GRAD, MatmulGeometry(4, 2, 8)
    words = [
        Scnn(matmul_tile=tile)
        .cost(LayerProduct(kind, geometry, *ones, arithmetic=arithmetic))
        .accesses["image_buffer.read"]
        for arithmetic in (Arithmetic(), narrow)
    ]
    assert words[0] == 2 * words[1]
