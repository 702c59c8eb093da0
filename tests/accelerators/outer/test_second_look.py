"""A second derivation of every count, from the definition of the layer alone.

Nothing here reads how the library lowers a product to planes. A forward product meets
X with W, an input gradient the zero-spread G with the rotated W, a weight gradient X
with G whose taps lie a stride apart; per axis, with stride ``t``, padding ``p``,
dilation ``d`` and ``R`` taps, image value ``y`` and kernel value ``r`` give an output
iff ``(y - r) / s`` is a whole number in ``[0, outputs)``.
"""

import itertools
from collections.abc import Iterator
from math import ceil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerator_oracles import GEOMETRIES, KINDS, PLANES, random_product
from torch.utils.flop_counter import FlopCounterMode

from elision.accelerators import Ant, Scnn
from elision.accelerators import Dense as DenseArray
from elision.products import Conv2dGeometry, LayerProduct, Product

Point = tuple[int, int]
#: The operands that are image and kernel.
ROLES = {
    Product.FORWARD: ("input", "weight"),
    Product.INPUT_GRAD: ("grad_output", "weight"),
    Product.WEIGHT_GRAD: ("input", "grad_output"),
}
CASES = [(name, kind) for name in PLANES for kind in KINDS]


def axis(
    kind: Product, g: Conv2dGeometry, i: int
) -> tuple[list[int], list[int], int, int]:
    """Coordinates of image and kernel by index, stride and outputs, of one axis."""
    size, out = (g.height, g.width)[i], (g.out_height, g.out_width)[i]
    taps, t, p, d = g.kernel[i], g.stride[i], g.padding[i], g.dilation[i]
    pixels = [h + p for h in range(size)]
    spread = [o * t for o in range(out)]
    if kind is Product.FORWARD:
        return pixels, [r * d for r in range(taps)], t, out
    if kind is Product.WEIGHT_GRAD:
        return pixels, spread, d, taps
    shifted = [o + d * (taps - 1) - p for o in spread]
    return shifted, [d * (taps - 1 - r) for r in range(taps)], 1, size


def plane_pairs(product: LayerProduct) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image plane and kernel plane of every pair that shares sample, group, channel."""
    g = product.geometry
    assert isinstance(g, Conv2dGeometry)
    c_of, k_of = g.in_channels // g.groups, g.out_channels // g.groups
    image, kernel = ROLES[product.kind]
    ranges = (range(n) for n in (g.batch, g.groups, c_of, k_of))
    for n, group, c, k in itertools.product(*ranges):
        channel, filter_ = group * c_of + c, group * k_of + k
        place = {
            "input": (n, channel),
            "weight": (filter_, c),
            "grad_output": (n, filter_),
        }
        operands = product.operands
        yield operands[image][place[image]], operands[kernel][place[kernel]]


def points(plane: np.ndarray, rows: list[int], columns: list[int]) -> list[Point]:
    """Coordinates of the non-zeros in compressed sparse row order."""
    found = [(rows[i], columns[j]) for i, j in np.argwhere(np.asarray(plane) != 0)]
    return sorted(found)


def hits(y: int, r: int, stride: int, outputs: int) -> bool:
    return (y - r) % stride == 0 and 0 <= (y - r) // stride < outputs


def expected(product: LayerProduct) -> dict[str, int]:
    """Products, valid ones, SCNN's cycles; ANT's products and cycles, n = 4, k = 16."""
    (ys, rs, ty, oy), (xs, ss, tx, ox) = (
        axis(product.kind, product.geometry, i)  # pyright: ignore[reportArgumentType]
        for i in range(2)
    )
    total: dict[str, int] = dict.fromkeys(
        ("nonzero", "valid", "scnn", "issued", "ant"), 0
    )
    for image_plane, kernel_plane in plane_pairs(product):
        image, kernel = points(image_plane, ys, xs), points(kernel_plane, rs, ss)
        total["nonzero"] += len(image) * len(kernel)
        total["valid"] += sum(
            hits(y, r, ty, oy) and hits(x, s, tx, ox)
            for (y, x), (r, s) in itertools.product(image, kernel)
        )
        total["scnn"] += ceil(len(image) / 4) * ceil(len(kernel) / 4)
        for first in range(0, len(image), 4):
            group = image[first : first + 4]
            y, x = zip(*group, strict=True)
            low_r, high_r = min(y) - ty * (oy - 1), max(y)
            low_s, high_s = min(x) - tx * (ox - 1), max(x)
            rows = [(r, s) for r, s in kernel if low_r <= r <= high_r]
            chosen = [s for _, s in rows if low_s <= s <= high_s]
            total["issued"] += len(group) * len(chosen)
            # Where no column of the plane is in range there is nothing to scan for.
            if any(low_s <= s <= high_s for s in ss):
                total["ant"] += max(ceil(len(chosen) / 4), ceil(len(rows) / 16))
    return total


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("density", [0.15, 0.5])
def test_counts_and_machines(name: str, kind: Product, density: float) -> None:
    product = random_product(np.random.default_rng(9), kind, GEOMETRIES[name], density)
    found, scnn, ant = expected(product), Scnn().cost(product), Ant().cost(product)
    counts = product.counts
    assert (counts.nonzero, counts.valid) == (found["nonzero"], found["valid"])
    assert counts.redundant == scnn.redundant_multiplies
    assert (scnn.multiplies, scnn.valid_multiplies) == (counts.nonzero, counts.valid)
    assert scnn.details["busy_cycles"] == found["scnn"]
    assert (ant.multiplies, ant.valid_multiplies) == (found["issued"], counts.valid)
    assert ant.details["busy_cycles"] == found["ant"]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_dense_macs(name: str) -> None:
    """Against enumeration of the layer's loops, and torch's counter on real calls."""
    g = GEOMETRIES[name]
    loops = (
        *(g.batch, g.out_channels, g.out_height, g.out_width),
        *(g.in_channels // g.groups, *g.kernel),
    )
    macs = sum(1 for _ in itertools.product(*(range(n) for n in loops)))
    x = torch.ones(g.shape_of("input"), requires_grad=True)
    w = torch.ones(g.shape_of("weight"), requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = F.conv2d(x, w, None, g.stride, g.padding, g.dilation, g.groups)
        assert counter.get_total_flops() == 2 * macs
        y.backward(torch.ones_like(y))
    assert y.shape == g.shape_of("grad_output")
    if g.groups == 1:  # torch counts a grouped backward pass as an ungrouped one
        assert counter.get_total_flops() == 3 * 2 * macs
    for kind in KINDS:
        product = random_product(np.random.default_rng(0), kind, g, density=2)
        assert product.dense_macs == macs
        assert DenseArray().cost(product).multiplies == macs


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_dense_operands_meet_once_per_output_and_tap(name: str, kind: Product) -> None:
    """Without zeros, valid products are the dense MACs less those that meet padding."""
    g = GEOMETRIES[name]
    product = random_product(np.random.default_rng(0), kind, g, density=2)
    inside = 1
    for i, (size, out) in enumerate(((g.height, g.out_height), (g.width, g.out_width))):
        inside *= sum(
            0 <= o * g.stride[i] - g.padding[i] + r * g.dilation[i] < size
            for o in range(out)
            for r in range(g.kernel[i])
        )
    planes = g.batch * g.out_channels * g.in_channels // g.groups
    assert product.counts.valid == planes * inside
    assert product.counts.valid <= product.dense_macs
