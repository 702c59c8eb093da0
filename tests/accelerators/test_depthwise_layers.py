"""The depthwise layers of small networks on every machine: the same products on all."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from elision.accelerators import ACCELERATORS
from elision.products import Conv2dGeometry, LayerProduct, Product
from elision.workloads import layer_shapes, make_model

#: Networks, narrow, and the side of their image here.
NETWORKS = {
    "mobilenet-v1": ({"width": 0.25}, 32),
    "mobilenet-v2": ({"width": 0.25}, 16),
    "mobilenet-v3-small": ({"width": 0.25}, 16),
    "efficientnet-b0": ({"width": 0.25}, 16),
    "ds-cnn": ({"width": 8}, 12),
}


@cache
def depthwise() -> list[Conv2dGeometry]:
    """Depthwise shapes of at most 64 channels, each once."""
    found: dict[Conv2dGeometry, None] = {}
    for name, (options, side) in NETWORKS.items():
        with torch.device("meta"):
            model = make_model(name, image_size=side, **options)
        for _, geometry in layer_shapes(model, (1, 3, side, side)):
            if (
                isinstance(geometry, Conv2dGeometry)
                and 1 < geometry.groups == geometry.in_channels <= 64
            ):
                found[geometry] = None
    return list(found)


def dense_product(kind: Product, geometry: Conv2dGeometry) -> LayerProduct:
    """Operands without a zero."""
    rng = np.random.default_rng(0)
    first, second = (
        1 + rng.random(geometry.shape_of(operand), np.float32)
        for operand in kind.operands
    )
    return LayerProduct(kind, geometry, first, second)


def test_the_shapes_are_of_both_kernels_and_strides() -> None:
    shapes = depthwise()
    assert {g.kernel for g in shapes} == {(3, 3), (5, 5)}
    assert {g.stride for g in shapes} == {(1, 1), (2, 2)}
    assert len(shapes) > 8


@pytest.mark.parametrize("kind", Product)
@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_machine_counts_the_products_of_a_depthwise_layer(name, kind) -> None:
    machine = ACCELERATORS[name]()
    for geometry in depthwise():
        product = dense_product(kind, geometry)
        cost = machine.cost(product)
        # A machine that looks at values leaves the padding's zeros out.
        assert cost.valid_multiplies in (geometry.dense_macs, product.counts.valid)
        assert cost.cycles > 0


@pytest.mark.parametrize("kind", Product)
def test_without_padding_all_machines_count_the_same(kind) -> None:
    for padded in depthwise()[::4]:
        (down, right), side = padded.padding, padded.height
        geometry = replace(
            padded, height=side + 2 * down, width=side + 2 * right, padding=(0, 0)
        )
        product = dense_product(kind, geometry)
        counted = {
            name: machine().cost(product).valid_multiplies
            for name, machine in ACCELERATORS.items()
        }
        wanted = (
            geometry.out_channels
            * geometry.out_height
            * geometry.out_width
            * int(np.prod(geometry.kernel))
        )
        assert counted == dict.fromkeys(ACCELERATORS, wanted)
