"""SCNN's planar mapping against its rules, walked on plain arrays.

The walk below knows none of the library's coordinates: it pads the image itself, cuts
tiles, lists non-zeros and multiplies them, for the forward product of a convolution.
"""

import itertools

import numpy as np
import pytest

from elision.accelerators import Scnn
from elision.products import Conv2dGeometry, LayerProduct, Product

GRID, LANES = 8, 4


def draw(rng, shape, sparsity):
    """Values 1..99 with an exact number of zeros."""
    size = int(np.prod(shape))
    values = rng.integers(1, 100, size=size)
    values[rng.permutation(size)[: round(size * sparsity)]] = 0
    return values.reshape(shape)


def ceil_div(a, b):
    return -(-a // b)


def outputs_of(size, taps, pad, stride, dilation):
    return (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1


def halo_sides(taps, pad, tile, stride, dilation):
    sides = dilation * (taps - 1) - pad, tile, pad
    return [max(ceil_div(side, stride), 0) for side in sides]


def step_cost(pixels, taps, outputs, stride):
    """Cycles of one step, its valid products: the fullest bank decides."""
    banks = []
    for x, y in pixels:
        for r, s, k in taps:
            if (x - r) % stride or (y - s) % stride:
                raise AssertionError("values of different residues met")
            ox, oy = (x - r) // stride, (y - s) // stride
            if 0 <= ox < outputs[0] and 0 <= oy < outputs[1]:
                mixed = (k >> 2) ^ (ox >> 1) ^ (oy >> 1)
                banks.append(16 * (mixed & 1) + 8 * (ox & 1) + 4 * (oy & 1) + k % 4)
    return max([1, *map(banks.count, set(banks))]), len(banks)


def by_residue(values, stride):
    classes = {}
    for value in values:
        classes.setdefault((value[0] % stride, value[1] % stride), []).append(value)
    return classes


def vectors(values):
    return [values[i : i + LANES] for i in range(0, len(values), LANES)]


def walk(image, weight, pad, stride=1, dilation=1, groups=1, entries=1024, by_group=0):
    """Counts of the serialised mapping; ``by_group`` moves the barrier."""
    samples, channels, height, width = image.shape
    filters, per_group, taps_x, taps_y = weight.shape
    how = (pad, stride, dilation)
    outputs = outputs_of(height, taps_x, *how), outputs_of(width, taps_y, *how)
    at_once = entries // (ceil_div(outputs[0], GRID) * ceil_div(outputs[1], GRID))
    at_once = 1 if groups == channels > 1 else min(at_once, filters // groups)
    tile = [ceil_div(size + 2 * pad, GRID) for size in (height, width)]
    padded = np.zeros((samples, channels, GRID * tile[0], GRID * tile[1]), int)
    padded[:, :, pad : pad + height, pad : pad + width] = image
    across, down = (
        halo_sides(n, pad, size, stride, dilation)
        for n, size in zip((taps_x, taps_y), tile, strict=True)
    )
    areas = [a * b for a, b in itertools.product(across, down)]
    halo = max(areas[:4] + areas[5:])
    cycles = halo_cycles = steps = valid = 0
    for sample, group in np.ndindex(samples, groups):
        first_filter = group * filters // groups
        for first in range(0, filters // groups, at_once):
            chosen = range(first, min(first + at_once, filters // groups))
            spent = np.zeros((per_group, GRID, GRID), int)
            for channel in range(per_group):
                taps = by_residue(
                    [
                        (dilation * r, dilation * s, first_filter + k)
                        for r, s, k in np.ndindex(taps_x, taps_y, filters // groups)
                        if k in chosen and weight[first_filter + k, channel, r, s]
                    ],
                    stride,
                )
                plane = padded[sample, group * per_group + channel]
                for i, j in np.ndindex(GRID, GRID):
                    corner = i * tile[0], j * tile[1]
                    own = [
                        (corner[0] + x, corner[1] + y)
                        for x, y in np.ndindex(*tile)
                        if plane[corner[0] + x, corner[1] + y]
                    ]
                    for residue, pixels in by_residue(own, stride).items():
                        met = taps.get(residue, [])
                        for a, b in itertools.product(vectors(pixels), vectors(met)):
                            cost, good = step_cost(a, b, outputs, stride)
                            spent[channel, i, j] += cost
                            steps += 1
                            valid += good
            waits = spent.sum(0).max() if by_group else spent.max((1, 2)).sum()
            cycles += waits + halo * len(chosen)
            halo_cycles += halo * len(chosen)
    return cycles, halo_cycles, steps, valid, at_once


CASES = {
    "odd plane": ((1, 5, 13, 11), (7, 5, 3, 3), {"pad": 1}),
    "oblong kernel": ((1, 3, 9, 14), (5, 3, 1, 5), {"pad": 0}),
    "two images": ((2, 3, 10, 9), (6, 3, 5, 3), {"pad": 2}),
    "padded beyond the kernel": ((1, 2, 6, 7), (5, 2, 3, 3), {"pad": 3}),
    "stride": ((1, 4, 15, 13), (6, 4, 3, 3), {"pad": 1, "stride": 2}),
    "stride on an even plane": ((1, 3, 16, 12), (9, 3, 3, 3), {"pad": 1, "stride": 2}),
    "stride 3": ((1, 2, 20, 19), (5, 2, 5, 5), {"pad": 2, "stride": 3}),
    "strided 1x1": ((1, 6, 14, 13), (9, 6, 1, 1), {"pad": 0, "stride": 2}),
    "dilation": ((1, 3, 15, 12), (5, 3, 3, 3), {"pad": 2, "dilation": 2}),
    "dilated stride": (
        *((1, 3, 15, 12), (5, 3, 3, 3)),
        {"pad": 2, "dilation": 2, "stride": 3},
    ),
    "groups": ((1, 6, 9, 9), (9, 2, 3, 3), {"pad": 1, "groups": 3}),
    "depthwise": ((1, 4, 9, 10), (8, 1, 3, 3), {"pad": 1, "groups": 4, "stride": 2}),
    "few accumulators": ((1, 3, 17, 17), (7, 3, 3, 3), {"pad": 1, "entries": 20}),
}


@pytest.mark.parametrize("barrier", ["channel", "group"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_rules(name, barrier):
    image_shape, weight_shape, how = CASES[name]
    rng = np.random.default_rng(1)
    image, weight = draw(rng, image_shape, 0.6), draw(rng, weight_shape, 0.5)
    geometry = Conv2dGeometry.of(
        image_shape,
        weight_shape,
        padding=how["pad"],
        **{k: v for k, v in how.items() if k not in ("pad", "entries")},
    )
    product = LayerProduct(Product.FORWARD, geometry, image, weight)
    machine = Scnn(
        mapping="planar",
        barrier=barrier,
        accumulator_entries=how.get("entries", 1024),
    )
    cost = machine.cost(product)
    found = (
        cost.cycles,
        cost.details["halo_cycles"],
        cost.details["issue_steps"],
        cost.valid_multiplies,
        machine.plan(product).filters_at_once,
    )
    assert found == walk(image, weight, **how, by_group=barrier == "group")
    assert cost.valid_multiplies == product.counts.valid
    waits = cost.details["idle_slots"] + cost.details["halo_slots"]
    busy = 16 * (cost.details["issue_steps"]) + cost.details["conflict_slots"]
    assert 1024 * cost.cycles == busy + waits
