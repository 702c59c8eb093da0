"""Dense, one-sided and intersection machines against enumeration of every output."""

import itertools
from collections import Counter

import numpy as np
import pytest
from accelerator_oracles import GEOMETRIES, KINDS, ceil_div, random_product

from elision.accelerators import Dense, Intersection, OneSided
from elision.accelerators.inner import matching
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

CASES = {**GEOMETRIES, "matmul": MatmulGeometry(4, 9, 5)}


def work_by_output(product):
    """For each output: its pairs, those with a non-zero first, second, both operands."""
    tensors = dict(zip(product.kind.operands, product.masks, strict=True))
    work = {output: Counter() for output in np.ndindex(product.result_shape)}
    for places in meetings(product.geometry):
        first, second = (tensors[n][places[n]] for n in product.kind.operands)
        found = work[places[product.kind.absent]]
        found["all"] += 1
        found["first"] += bool(first)
        found["second"] += bool(second)
        found["both"] += bool(first and second)
    return list(work.values())


def meetings(geometry):
    """Places in input, weight and grad_output of every multiplication of a layer."""
    if isinstance(geometry, MatmulGeometry):
        sizes = (geometry.rows, geometry.inner, geometry.columns)
        for m, i, n in itertools.product(*map(range, sizes)):
            yield {"input": (m, i), "weight": (n, i), "grad_output": (m, n)}
        return
    (py, px), (ty, tx), (dy, dx) = geometry.padding, geometry.stride, geometry.dilation
    for n, k, p, q in np.ndindex(geometry.shape_of("grad_output")):
        for c, r, s in np.ndindex(geometry.shape_of("weight")[1:]):
            y, x = p * ty - py + r * dy, q * tx - px + s * dx
            if 0 <= y < geometry.height and 0 <= x < geometry.width:
                per_group = geometry.out_channels // geometry.groups
                group_size = geometry.in_channels // geometry.groups
                channel = k // per_group * group_size + c
                yield {
                    "input": (n, channel, y, x),
                    "weight": (k, c, r, s),
                    "grad_output": (n, k, p, q),
                }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_equals_enumeration(name, kind):
    product = random_product(np.random.default_rng(7), kind, CASES[name])
    work = work_by_output(product)
    elements, lanes = 3, 2

    def shared(cycles):
        return max(ceil_div(sum(cycles), elements), max(cycles))

    for side in ("first", "second"):
        cost = OneSided(side=side, elements=elements, lanes=lanes).cost(product)
        assert cost.multiplies == sum(w[side] for w in work)
        zeros = sum(w[side] - w["both"] for w in work)
        assert cost.details["zero_products"] == zeros
        assert cost.cycles == shared([ceil_div(w[side], lanes) for w in work])
    machine = Intersection(elements=elements, lanes=lanes, chunk=4, join_cycles=2)
    cost = machine.cost(product)
    assert cost.multiplies == sum(w["both"] for w in work) == product.counts.valid
    assert cost.cycles == shared(
        [ceil_div(w["both"], lanes) + 2 * ceil_div(w["all"], 4) for w in work]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_side_by_operand_name(kind):
    product = random_product(np.random.default_rng(8), kind, GEOMETRIES["same"])
    sides = dict(zip(kind.operands, ("first", "second"), strict=True))
    for operand, side in sides.items():
        assert OneSided(side=operand).cost(product) == OneSided(side=side).cost(product)
    # The operand that this product does not read: nothing is skipped.
    work = work_by_output(product)
    cost = OneSided(side=kind.absent).cost(product)
    assert cost.multiplies == sum(w["all"] for w in work)


@pytest.mark.parametrize("sparse", ["first", "second"])
def test_sparser_side(sparse):
    geometry = GEOMETRIES["same"]
    rng = np.random.default_rng(9)
    dense = random_product(rng, Product.FORWARD, geometry, 0.9)
    thin = random_product(rng, Product.FORWARD, geometry, 0.1)
    operands = {"first": dense.first, "second": dense.second}
    operands[sparse] = getattr(thin, sparse)
    product = LayerProduct(Product.FORWARD, geometry, **operands)
    assert OneSided().cost(product) == OneSided(side=sparse).cost(product)


def test_dense_layer_on_1024_multipliers():
    """The 3x3 layer of 64 to 64 channels on 56x56: 115.6 M MACs in 112,896 cycles."""
    geometry = Conv2dGeometry(1, 64, 56, 56, 64, 3, 1, 1)
    for kind in KINDS:
        cost = Dense().cost(LayerProduct(kind, geometry))
        assert cost.cycles == 112_896
        assert cost.utilisation == 1
    ones = np.ones(geometry.shape_of("input")), np.ones(geometry.shape_of("weight"))
    cost = OneSided().cost(LayerProduct(Product.FORWARD, geometry, *ones))
    # Padding is not multiplied, but the lanes of its place stay idle or are refilled.
    assert cost.multiplies == 64 * 64 * (3 * 56 - 2) ** 2
    assert cost.cycles <= 112_896


@pytest.mark.parametrize("machine", [OneSided(), Intersection(join_cycles=0)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_empty_operands_cost_nothing(machine, kind):
    product = random_product(np.random.default_rng(0), kind, GEOMETRIES["same"], 0)
    cost = machine.cost(product)
    assert (cost.cycles, cost.multiplies) == (0, 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OneSided(side="weights"), "did you mean 'weight'"),
        (lambda: OneSided(lanes=0), "lanes=0"),
        (lambda: Intersection(chunk=0), "chunk=0"),
        (lambda: Intersection(join_cycles=-1), "join_cycles=-1"),
        (lambda: Dense(multipliers=0), "multipliers=0"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_matches_do_not_depend_on_the_size_of_a_block(
    name: str, kind: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = random_product(np.random.default_rng(3), kind, CASES[name], 0.5)
    machine = Intersection(elements=3, lanes=2, chunk=4)
    whole = machine.cost(product)
    for block in (1, 40):
        monkeypatch.setattr(matching, "_BLOCK", block)
        assert machine.cost(product) == whole
    monkeypatch.setattr(matching, "_EXACT", 5)
    assert machine.cost(product) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_product_of_4096_cubed_is_counted_exactly(
    kind: Product,
) -> None:
    """Slices of whole rows and columns, whose matches are known."""
    geometry = MatmulGeometry(4096, 4096, 4096)
    first, second = (
        np.zeros(geometry.shape_of(operand), bool) for operand in kind.operands
    )
    first[:, :] = True
    second[:7] = True
    product = LayerProduct(kind, geometry, first, second)
    # The sliced axis of the second operand is summed over in both gradients.
    sliced = kind is not Product.FORWARD
    cost = Intersection(join_cycles=0).cost(product)
    assert cost.multiplies == 4096**2 * 7
    longest, outputs = (7, 4096**2) if sliced else (4096, 4096 * 7)
    assert cost.cycles == max(longest * outputs // 1024, longest)
    assert OneSided(side="second").cost(product).multiplies == 4096**2 * 7
