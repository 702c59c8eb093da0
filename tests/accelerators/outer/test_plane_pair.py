"""SCNN plane-pair and ANT against enumeration, and against published figures."""

import numpy as np
import pytest
from accelerator_oracles import (
    GEOMETRIES,
    KINDS,
    PLANES,
    ant_by_pairs,
    ceil_div,
    count_by_pairs,
    geometries,
    random_product,
    scnn_by_pairs,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.accelerators import ACCELERATORS, Ant, Scnn
from elision.products import (
    Conv2dGeometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)
from elision.products.canonical import canonical_geometry

CASES = pytest.mark.parametrize(
    ("geometry", "kind"),
    [
        pytest.param(geometry, kind, id=f"{name}-{kind.value}")
        for name, geometry in PLANES.items()
        for kind in KINDS
    ],
)


@CASES
def test_outer_products_are_the_layers_products(geometry, kind):
    product = random_product(np.random.default_rng(1), kind, geometry)
    counts = product.counts
    assert count_by_pairs(product) == (counts.nonzero, counts.valid)


@CASES
@pytest.mark.parametrize(("n", "window", "group"), [(4, 16, 4), (2, 3, 3), (1, 1, 1)])
def test_machines_equal_enumeration(geometry, kind, n, window, group):
    product = random_product(np.random.default_rng(2), kind, geometry)
    scnn = Scnn(multipliers=n).cost(product)
    assert scnn.details["busy_cycles"] == scnn_by_pairs(product, n)
    assert scnn.multiplies == product.counts.nonzero
    scanned, closed, issued, valid = ant_by_pairs(product, n, window, group)
    assert valid == product.counts.valid, "a valid product was not issued"
    for method, cycles in (("scan", scanned), ("closed", closed)):
        ant = Ant(multipliers=n, window=window, group=group, method=method)
        cost = ant.cost(product)
        assert cost.details["busy_cycles"] == cycles
        assert cost.multiplies == issued
        assert cost.valid_multiplies == valid
        skipped = cost.details["skipped_products"]
        assert valid + cost.redundant_multiplies + skipped == product.counts.nonzero


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    geometry=geometries(),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 4),
)
def test_any_convolution(seed, geometry, kind, n):
    """All three machines find the valid products, whatever the shape."""
    product = random_product(np.random.default_rng(seed), kind, geometry, 0.4)
    counts = product.counts
    if not isinstance(canonical_geometry(geometry), Conv2dGeometry):
        return  # a matrix product has no planes
    scanned, closed, issued, valid = ant_by_pairs(product, n, window=5, group=n)
    assert valid == counts.valid
    for method, cycles in (("scan", scanned), ("closed", closed)):
        cost = Ant(multipliers=n, window=5, method=method).cost(product)
        assert (cost.multiplies, cost.details["busy_cycles"]) == (issued, cycles)
    planar = Scnn(mapping="planar", multipliers=n).cost(product)
    assert planar.valid_multiplies == counts.valid
    few = Scnn(mapping="planar", grid=(2, 2), accumulator_entries=2).cost(product)
    assert few.valid_multiplies == counts.valid
    assert Scnn(multipliers=n).cost(product).multiplies == counts.nonzero


def slide_product():
    """The convolution on the slides: 8 non-zero products, 4 of them redundant."""
    kernel = np.array([[2, -3], [0, 0]], np.float32).reshape(1, 1, 2, 2)
    image = np.array([[1, 0, 0], [0, -1, 2], [0, 0, 3]], np.float32)
    geometry = Conv2dGeometry(1, 1, 3, 3, 1, 2)
    image = image.reshape(1, 1, 3, 3)
    return LayerProduct(Product.FORWARD, geometry, image, kernel)


@pytest.mark.parametrize(("n", "removed"), [(4, 0), (2, 2), (1, 4)])
def test_slide(n, removed):
    product = slide_product()
    assert product.compute().flatten().tolist() == [2, 0, 3, -8]
    scnn, ant = Scnn().cost(product), Ant(multipliers=n).cost(product)
    assert (scnn.multiplies, scnn.redundant_multiplies) == (8, 4)
    assert scnn.redundant_multiplies - ant.redundant_multiplies == removed


@pytest.mark.parametrize(
    ("planes", "kind", "issued", "closed", "scanned", "scnn_cycles", "nonzero"),
    [
        ((34, 32), Product.WEIGHT_GRAD, 14268, 1068, 1110, 11554, 179751),
        ((10, 8), Product.WEIGHT_GRAD, 259, 31, 33, 48, 550),
        ((34, 3), Product.FORWARD, 766, 195, 195, 198, 778),
    ],
)
def test_independent_enumeration(
    planes, kind, issued, closed, scanned, scnn_cycles, nonzero
):
    """Figures of an independent enumeration of 4 x 4 planes, on its own operands."""
    rng = np.random.default_rng(0)
    for sizes in ((34, 32), (10, 8), (34, 3)):  # one stream for all three
        image, kernel = (rng.random((64, s, s)) < 0.1 for s in sizes)
        if sizes == planes:
            break
    inner = image[:4, 1:-1, 1:-1]  # the outer ring is padding
    size = planes[0] - 2
    if kind is Product.WEIGHT_GRAD:
        geometry = Conv2dGeometry(1, 4, size, size, 4, 3, 1, 1)
        product = LayerProduct(kind, geometry, kernel[None, :4], inner[None])
    else:
        # Every plane meets every kernel: four samples of one channel.
        geometry = Conv2dGeometry(4, 1, size, size, 4, 3, 1, 1)
        product = LayerProduct(kind, geometry, inner[:, None], kernel[:4, None])
    assert product.counts.nonzero == nonzero
    assert Scnn().cost(product).details["busy_cycles"] == scnn_cycles
    for method, cycles in (("closed", closed), ("scan", scanned)):
        cost = Ant(method=method).cost(product)
        assert cost.multiplies == issued
        assert cost.details["busy_cycles"] == cycles


@pytest.mark.parametrize("kind", KINDS)
def test_matmul_meets_by_index(kind):
    product = random_product(np.random.default_rng(3), kind, MatmulGeometry(7, 6, 9))
    first, second = product.masks
    if kind is Product.WEIGHT_GRAD:  # shared: rows
        lists = zip(first, second, strict=True)
    elif kind is Product.INPUT_GRAD:  # shared: columns
        lists = zip(first.T, second, strict=True)
    else:  # shared: inner
        lists = zip(first.T, second.T, strict=True)
    lists = [(int(a.sum()), int(b.sum())) for a, b in lists]
    for machine, lanes in ((Scnn(), 4), (Ant(), 4), (Ant(window=3), 3)):
        cost = machine.cost(product)
        cycles = sum(ceil_div(a, 4) * ceil_div(b, lanes) for a, b in lists)
        assert cost.details["busy_cycles"] == cycles
        assert cost.multiplies == cost.valid_multiplies == product.counts.valid
        assert cost.multiplies == sum(a * b for a, b in lists)


def test_one_image_uses_a_quarter_of_the_array():
    """A fully connected layer on one sample reaches 25 % of the peak, as published."""
    ones = np.ones((1, 64)), np.ones((128, 64))
    cost = Scnn().cost(LayerProduct(Product.FORWARD, MatmulGeometry(1, 64, 128), *ones))
    assert cost.utilisation == 0.25


def test_startup_is_paid_per_pair():
    geometry = Conv2dGeometry(1, 2, 4, 4, 3, 3, 1, 1)
    image, weight = np.ones((1, 2, 4, 4)), np.ones((3, 2, 3, 3))
    weight[0, 0] = 0
    product = LayerProduct(Product.FORWARD, geometry, image, weight)
    for machine in (Scnn, Ant):
        base = machine().cost(product)
        every = machine(startup_cycles=5).cost(product)
        full = machine(startup_cycles=5, skip_empty_pairs=True).cost(product)
        assert every.details["busy_cycles"] - base.details["busy_cycles"] == 5 * 6
        assert full.details["busy_cycles"] - base.details["busy_cycles"] == 5 * 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("machine", [Scnn(), Ant(), Ant(method="scan")], ids=str)
def test_empty_operands_cost_no_multiply(kind, machine):
    for geometry in (GEOMETRIES["stride"], MatmulGeometry(3, 4, 5)):
        product = random_product(np.random.default_rng(0), kind, geometry, density=0)
        cost = machine.cost(product)
        assert (cost.cycles, cost.multiplies, cost.energy_breakdown_pj["multiply"]) == (
            0,
            0,
            0,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_dense_operands_give_the_dense_closed_form(kind):
    geometry = Conv2dGeometry(1, 3, 8, 8, 5, 3, 1, 1)
    product = random_product(np.random.default_rng(0), kind, geometry, density=2)
    pixels, taps = ceil_div(64, 4), ceil_div(9, 4)
    steps = pixels * pixels if kind is Product.WEIGHT_GRAD else pixels * taps
    cost = Scnn().cost(product)
    assert cost.details["busy_cycles"] == 3 * 5 * steps
    # Each axis loses the one tap that hangs over each edge.
    assert cost.valid_multiplies == 3 * 5 * (3 * 8 - 2) ** 2


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(sorted(GEOMETRIES)),
    density=st.sampled_from([0.05, 0.2, 0.6]),
    n=st.integers(1, 6),
    window=st.integers(1, 9),
    group=st.integers(1, 7),
)
def test_monotone(seed, kind, name, density, n, window, group):
    """More lanes, a wider window, or fewer kernel values never cost cycles.

    The group is held: a larger one mixes rows and can cost cycles.
    """
    rng = np.random.default_rng(seed)
    product = random_product(rng, kind, GEOMETRIES[name], density)

    def busy(machine, of=product):
        return machine.cost(of).details["busy_cycles"]

    # The kernel is the weight, or else the gradient.
    first, second = product.first, product.second
    if kind is Product.WEIGHT_GRAD:
        first = first * (rng.random(first.shape) < 0.7)
    else:
        second = second * (rng.random(second.shape) < 0.7)
    sparser = LayerProduct(kind, product.geometry, first, second)
    assert busy(Scnn(multipliers=n + 1)) <= busy(Scnn(multipliers=n))
    assert busy(Scnn(), sparser) <= busy(Scnn())
    costs = {}
    for method in ("closed", "scan"):
        ant = Ant(multipliers=n, window=window, group=group, method=method)
        wider = Ant(multipliers=n, window=window + 1, group=group, method=method)
        larger = Ant(multipliers=n + 1, window=window, group=group, method=method)
        costs[method] = busy(ant)
        assert busy(wider) <= costs[method]
        assert busy(larger) <= costs[method]
        assert busy(ant, sparser) <= costs[method]
    # A cycle of the scan issues n values or passes a whole window, or ends a group.
    assert costs["closed"] <= costs["scan"] <= 2 * costs["closed"]


def test_costs_of_a_sum_are_sums():
    rng = np.random.default_rng(5)
    products = [random_product(rng, kind, GEOMETRIES["same"]) for kind in KINDS]
    for machine in (Scnn(), Ant()):
        costs = [machine.cost(product) for product in products]
        total = sum(costs)
        assert total.cycles == sum(c.cycles for c in costs)
        assert total.energy_pj == pytest.approx(sum(c.energy_pj for c in costs))
        assert total.details["busy_cycles"] == sum(
            c.details["busy_cycles"] for c in costs
        )


def test_elements_share_the_pairs():
    product = random_product(np.random.default_rng(6), KINDS[2], GEOMETRIES["same"])
    one = Scnn(grid=(1, 1)).cost(product)
    assert one.cycles == one.details["busy_cycles"]
    many = Scnn(grid=(1000, 1000)).cost(product)
    longest = max(
        ceil_div(int(a.sum()), 4) * ceil_div(int(b.sum()), 4)
        for image, gradient in zip(product.masks[1], product.masks[0], strict=True)
        for a in image
        for b in gradient
    )
    assert many.cycles == longest


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Scnn(mapping="tiles"), "unknown mapping"),
        (lambda: Scnn(grid=(0, 1)), "grid"),
        (lambda: Scnn(startup_cycles=-1), r"Scnn\(startup_cycles=-1\)"),
        (lambda: Ant(multipliers=0), r"Ant\(multipliers=0\)"),
        (lambda: Ant(window=0), "window=0"),
        (lambda: Ant(group=0), "group=0"),
        (lambda: Ant(method="scann"), "did you mean 'scan'"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", ["ant", "scnn"])
def test_bad_operands_are_named(name):
    machine = ACCELERATORS[name]()
    geometry = Conv2dGeometry(1, 1, 4, 4, 1, 3)
    image, weight = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match="needs the operands"):
        machine.cost(LayerProduct(Product.FORWARD, geometry))
    image[0, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="input holds a NaN"):
        machine.cost(LayerProduct(Product.FORWARD, geometry, image, weight))
