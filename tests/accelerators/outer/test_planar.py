"""SCNN's planar mapping against another simulator's figures and against enumeration."""

import math

import numpy as np
import pytest
from accelerator_oracles import GEOMETRIES, KINDS, ceil_div, random_product

from elision.accelerators import Scnn
from elision.accelerators.outer.planes import folded_matmul, laid_out
from elision.accelerators.outer.scnn import FOLDED
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

#: Operands of the recorded cases, drawn from one stream in this order:
#: name, input shape, its sparsity, weight shape, its sparsity, padding.
DRAWN = (
    ("F90_90", (1, 64, 56, 56), 0.9, (64, 64, 3, 3), 0.9, 1),
    ("F50_90", (1, 64, 56, 56), 0.5, (64, 64, 3, 3), 0.9, 1),
    ("F00_00", (1, 64, 56, 56), 0.0, (64, 64, 3, 3), 0.0, 1),
    ("P1x1_90_90", (1, 256, 14, 14), 0.9, (512, 256, 1, 1), 0.9, 0),
)


@pytest.fixture(scope="module")
def recorded():
    rng = np.random.default_rng(0)

    def draw(shape, sparsity):
        size = int(np.prod(shape))
        values = rng.integers(1, 100, size=size)
        values[rng.permutation(size)[: round(size * sparsity)]] = 0
        return values.reshape(shape)

    products = {}
    for name, image, image_zeros, weight, weight_zeros, padding in DRAWN:
        operands = draw(image, image_zeros), draw(weight, weight_zeros)
        geometry = Conv2dGeometry.of(image, weight, padding=padding)
        products[name] = LayerProduct(Product.FORWARD, geometry, *operands)
    assert products["F90_90"].first.sum() == 1_006_286
    assert products["P1x1_90_90"].second.sum() == 660_131
    return products


#: Measured with DNNsim (accumulator entries 1,024 unless said): cycles, of which halo,
#: valid and all non-zero products, issue steps, filters at once, image vectors, slots
#: not used by a valid product, conflict, idle and halo slots.
MEASURED = {
    "F90_90": (
        *(8236, 512, 1127247, 1154914, 103830),
        *(20, 26060, 534033, 1478144, 4769952, 524288),
    ),
    "P1x1_90_90": (
        *(5262, 0, 257362, 257362, 58468),
        *(256, 8616, 678126, 484240, 3968560, 0),
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_equals_the_measured_rows(recorded, name):
    product = recorded[name]
    machine = Scnn(mapping="planar")
    cost = machine.cost(product)
    more = cost.details
    assert MEASURED[name] == (
        cost.cycles,
        more["halo_cycles"],
        cost.valid_multiplies,
        cost.multiplies,
        more["issue_steps"],
        machine.plan(product).filters_at_once,
        more["image_vectors"],
        more["redundant_slots"] + more["fragmented_slots"],
        more["conflict_slots"],
        more["idle_slots"],
        more["halo_slots"],
    )
    assert cost.valid_multiplies == product.counts.valid


def test_a_matrix_product_is_the_1x1_convolution_that_was_measured(recorded) -> None:
    """196 rows are the 14 x 14 pixels of the measured row, wherever they came from."""
    pixels = recorded["P1x1_90_90"]
    x = pixels.first.reshape(256, 196).T
    for geometry, first, second in (
        (MatmulGeometry(196, 256, 512), x, pixels.second.reshape(512, 256)),
        (Conv2dGeometry(196, 256, 1, 1, 512, 1), x[:, :, None, None], pixels.second),
        (
            Conv2dGeometry(1, 256, 7, 28, 512, 1),
            x.T.reshape(1, 256, 7, 28),
            pixels.second,
        ),
    ):
        product = LayerProduct(Product.FORWARD, geometry, first, second)
        cost = Scnn(mapping="planar").cost(product)
        assert cost == Scnn(mapping="planar").cost(pixels)
        assert (cost.cycles, cost.notes) == (5262, ())


def test_a_single_row_is_folded_and_the_cost_says_so() -> None:
    """The public simulator's rule: planes of 16 x 16 of the summation index."""
    geometry = MatmulGeometry(1, 512, 64)
    product = LayerProduct(
        Product.FORWARD, geometry, np.ones((1, 512)), np.ones((64, 512))
    )
    cost = Scnn(mapping="planar").cost(product)
    folded = folded_matmul(product.canonical)
    assert folded.images.shape == (2, 1, 16, 16)
    assert cost.multiplies == 256 * cost.valid_multiplies
    assert cost.notes == (FOLDED,)
    assert (cost + cost).notes == (FOLDED,)
    assert Scnn().cost(product).notes == ()


def test_more_accumulators_than_the_machine_has(recorded):
    machine = Scnn(mapping="planar", accumulator_entries=6144)
    assert machine.cost(recorded["F90_90"]).cycles == 8545


@pytest.mark.parametrize(("name", "cycles"), [("F90_90", 3386), ("P1x1_90_90", 3468)])
def test_without_conflicts(recorded, name, cycles):
    cost = Scnn(mapping="planar", conflicts="ideal").cost(recorded[name])
    assert cost.cycles - cost.details["halo_cycles"] == cycles
    assert cost.details["conflict_slots"] == 0


@pytest.mark.parametrize("name", [case[0] for case in DRAWN])
def test_every_slot_is_accounted_for(recorded, name):
    cost = Scnn(mapping="planar").cost(recorded[name])
    more = cost.details
    kinds = ("redundant", "fragmented", "conflict", "idle", "halo")
    slots = sum(more[f"{kind}_slots"] for kind in kinds)
    assert cost.multiplier_slots == 1024 * cost.cycles == cost.valid_multiplies + slots


def test_dense_operands_have_a_closed_form(recorded):
    cost = Scnn(mapping="planar").cost(recorded["F00_00"])
    assert cost.valid_multiplies == 64 * 64 * (3 * 56 - 2) ** 2


def planar_by_enumeration(product, grid, lanes, entries, serialised):
    """The rules, one product at a time; passes are checked elsewhere."""
    outer = laid_out(product.canonical)
    rows, columns = outer.rows, outer.columns
    channels, samples = outer.images.shape[:2]
    filters = outer.kernels.shape[1]
    axes = tuple(zip((rows, columns), grid, strict=True))
    tile = [ceil_div(axis.extent, n) for axis, n in axes]
    held = math.prod(ceil_div(axis.outputs, n) for axis, n in axes)
    at_once = entries // held
    assert at_once >= 1
    cycles = steps = valid = 0
    for first in range(0, filters, at_once):
        chosen = range(first, min(first + at_once, filters))
        for channel in range(channels):
            taps = sorted(
                (rows.kernel_step * int(r), columns.kernel_step * int(s), k)
                for k in chosen
                for r, s in zip(*np.nonzero(outer.kernels[channel, k]), strict=True)
            )
            for sample in range(samples):
                pixels = [
                    (
                        rows.image_step * int(i) + rows.image_offset,
                        columns.image_step * int(j) + columns.image_offset,
                    )
                    for i, j in zip(
                        *np.nonzero(outer.images[channel, sample]), strict=True
                    )
                ]
                slowest = 0
                for row in range(grid[0]):
                    for column in range(grid[1]):
                        own = [
                            (x, y)
                            for x, y in pixels
                            if 0 <= x < rows.extent
                            and 0 <= y < columns.extent
                            and (x // tile[0], y // tile[1]) == (row, column)
                        ]
                        spent, issued, good = element(
                            own, taps, rows, columns, lanes, serialised
                        )
                        slowest = max(slowest, spent)
                        steps += issued
                        valid += good
                cycles += slowest
    return cycles, steps, valid


def element(pixels, taps, rows, columns, lanes, serialised):
    spent = issued = good = 0
    for a in range(rows.stride):
        for b in range(columns.stride):

            def in_class(value, a=a, b=b):
                return value[0] % rows.stride == a and value[1] % columns.stride == b

            image, kernel = list(filter(in_class, pixels)), list(filter(in_class, taps))
            for i in range(0, len(image), lanes):
                for j in range(0, len(kernel), lanes):
                    banks = []
                    for x, y in image[i : i + lanes]:
                        for r, s, k in kernel[j : j + lanes]:
                            ox, down = divmod(x - r, rows.stride)
                            oy, across = divmod(y - s, columns.stride)
                            assert down == across == 0
                            if 0 <= ox < rows.outputs and 0 <= oy < columns.outputs:
                                bit = (k // 4 + ox // 2 + oy // 2) % 2
                                banks.append(
                                    16 * bit + 8 * (ox % 2) + 4 * (oy % 2) + k % 4
                                )
                    fullest = max((banks.count(bank) for bank in banks), default=0)
                    spent += max(1, fullest) if serialised else 1
                    issued += 1
                    good += len(banks)
    return spent, issued, good


ENUMERATED = {
    **GEOMETRIES,
    "many filters": Conv2dGeometry(1, 2, 9, 9, 11, 3, 2, 1),
    "matmul": MatmulGeometry(3, 270, 5),
    "matmul of one row": MatmulGeometry(1, 270, 5),
    "matmuls": MatmulGeometry(5, 9, 3, batch=2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ENUMERATED)
def test_equals_enumeration(name, kind):
    product = random_product(np.random.default_rng(4), kind, ENUMERATED[name], 0.5)
    for grid, lanes, entries in (((8, 8), 4, 1024), ((2, 3), 2, 30)):
        for conflicts in ("serialised", "ideal"):
            machine = Scnn(
                mapping="planar",
                grid=grid,
                multipliers=lanes,
                accumulator_entries=entries,
                conflicts=conflicts,
            )
            cost = machine.cost(product)
            found = (
                cost.cycles - cost.details["halo_cycles"],
                cost.details["issue_steps"],
                cost.valid_multiplies,
            )
            expected = planar_by_enumeration(
                product, grid, lanes, entries, conflicts == "serialised"
            )
            assert found == expected
            assert cost.valid_multiplies == product.counts.valid
            executed = cost.valid_multiplies + cost.redundant_multiplies
            skipped = cost.details["skipped_products"]
            assert executed + skipped == product.counts.nonzero


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("entries", [1, 3])
def test_passes_lose_no_output(name, kind, entries):
    product = random_product(np.random.default_rng(5), kind, GEOMETRIES[name])
    machine = Scnn(mapping="planar", grid=(2, 2), accumulator_entries=entries)
    cost = machine.cost(product)
    assert cost.valid_multiplies == product.counts.valid
    plan = machine.plan(product)
    assert plan.passes == cost.details["passes"]
    assert plan.filters_at_once >= 1
    largest = [ceil_div(axes[0].outputs, 2) for axes in (plan.rows, plan.columns)]
    assert largest[0] * largest[1] <= entries


def test_passes_are_the_fewest():
    """40 x 40 outputs, 5 x 5 per element: 1,600 outputs need two passes of 32 x 25."""
    product = LayerProduct(
        Product.FORWARD,
        Conv2dGeometry(1, 1, 40, 40, 1, 3, 1, 1),
        np.ones((1, 1, 40, 40)),
        np.ones((1, 1, 3, 3)),
    )
    passes = {
        entries: Scnn(mapping="planar", accumulator_entries=entries)
        .plan(product)
        .passes
        for entries in (25, 24, 15, 14, 5, 1)
    }
    # 5 x 5 | 3 x 5 in two | 3 x 5 | 2 x 5 in three | 1 x 5 in five | 1 x 1 in 25
    assert passes == {25: 1, 24: 2, 15: 2, 14: 3, 5: 5, 1: 25}


@pytest.mark.parametrize(
    ("how", "halo"),
    [
        # 58 padded rows on 8 elements: tiles of 8 x 8; sides 1, 8, 1.
        ({"kernel": 3, "padding": 1}, 8 * 1 * 4),
        ({"kernel": 1, "padding": 0}, 0),
        # Stride 2: sides of 3, 8 and 3 pixels hold at most 2, 4 and 2 outputs.
        ({"kernel": 7, "padding": 3, "stride": 2}, 4 * 2 * 4),
        # Padding beyond the kernel: sides 0, 8 and 3.
        ({"kernel": 3, "padding": 3}, 8 * 3 * 4),
    ],
)
def test_halo(how, halo):
    geometry = Conv2dGeometry(1, 2, 56, 56, 4, **how)
    product = random_product(np.random.default_rng(0), Product.FORWARD, geometry)
    assert Scnn(mapping="planar").cost(product).details["halo_cycles"] == halo


def test_weight_gradients_exchange_no_halo():
    product = random_product(
        np.random.default_rng(0), Product.WEIGHT_GRAD, GEOMETRIES["stride"]
    )
    assert Scnn(mapping="planar").cost(product).details["halo_cycles"] == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"mapping": "tiles"}, "unknown mapping of Scnn 'tiles'"),
        ({"conflicts": "serial"}, "did you mean 'serialised'"),
        ({"accumulator_entries": 0}, "accumulator_entries=0.*>= 1"),
        ({"grid": (8, 0)}, r"grid=\(8, 0\)"),
    ],
)
def test_bad_parameters_are_named(how, message):
    with pytest.raises(ValueError, match=message):
        Scnn(**how)
