"""The canonical form: every notation of a product computes it, and is one geometry."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_layers import batched_matmuls, convolutions, sparse_operands

from elision.products import (
    OPERANDS,
    Conv1dGeometry,
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose1dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)
from elision.products.canonical import canonical_geometry, canonical_operand

#: Matrix products in other notations, and what they are.
NOTATIONS: dict[str, tuple[Geometry, MatmulGeometry]] = {
    "pixels": (Conv2dGeometry(1, 6, 4, 5, 3, 1), MatmulGeometry(20, 6, 3)),
    "images": (Conv2dGeometry(20, 6, 1, 1, 3, 1), MatmulGeometry(20, 6, 3)),
    "images of pixels": (Conv2dGeometry(2, 6, 2, 5, 3, 1), MatmulGeometry(20, 6, 3)),
    "one pixel, any stride": (
        Conv2dGeometry(20, 6, 1, 1, 3, 1, 3, 0, 2),
        MatmulGeometry(20, 6, 3),
    ),
    "line": (Conv1dGeometry(4, 6, 5, 3, 1), MatmulGeometry(20, 6, 3)),
    "line of patches": (
        Conv1dGeometry(2, 4, 6, 5, 3, 3, groups=1),
        MatmulGeometry(4, 12, 5),
    ),
    "transposed line": (
        ConvTranspose1dGeometry.of((2, 4, 3), (4, 3, 2), stride=2, groups=2),
        MatmulGeometry(6, 2, 6, 2),
    ),
    "transposed volume": (
        ConvTranspose3dGeometry.of((2, 4, 3, 1, 1), (4, 3, 2, 1, 1), (2, 1, 1)),
        MatmulGeometry(6, 4, 6),
    ),
    "signal": (
        Conv2dGeometry.of_1d((4, 6, 5), (3, 6, 1)),
        MatmulGeometry(20, 6, 3),
    ),
    "kernel of the image's size": (
        Conv2dGeometry(5, 3, 4, 2, 6, (4, 2)),
        MatmulGeometry(5, 24, 6),
    ),
    "patches": (
        Conv2dGeometry(2, 3, 6, 4, 5, (3, 2), (3, 2)),
        MatmulGeometry(8, 18, 5),
    ),
    "columns": (Conv2dGeometry(2, 3, 4, 5, 6, (4, 1)), MatmulGeometry(10, 12, 6)),
    "groups": (Conv2dGeometry(2, 6, 3, 3, 4, 1, groups=2), MatmulGeometry(18, 3, 2, 2)),
    "depthwise": (
        Conv2dGeometry(2, 3, 2, 2, 3, 1, groups=3),
        MatmulGeometry(8, 1, 1, 3),
    ),
    "volume": (
        Conv3dGeometry(2, 3, 2, 2, 4, 5, (1, 2, 2), (1, 2, 2)),
        MatmulGeometry(8, 12, 5),
    ),
    "transposed pixels": (
        ConvTranspose2dGeometry.of((2, 6, 2, 5), (6, 3, 1, 1)),
        MatmulGeometry(20, 6, 3),
    ),
    "transposed patches": (
        ConvTranspose2dGeometry.of((2, 4, 3, 3), (4, 3, 2, 2), stride=2, groups=2),
        MatmulGeometry(18, 2, 12, 2),
    ),
}


@pytest.mark.parametrize("name", NOTATIONS)
def test_a_matrix_product_has_one_form(name: str) -> None:
    written, expected = NOTATIONS[name]
    assert canonical_geometry(written) == expected
    rng = np.random.default_rng(0)
    own = {
        o: rng.integers(-3, 4, written.shape_of(o)).astype(np.float64) for o in OPERANDS
    }
    flat = {o: canonical_operand(written, o, value) for o, value in own.items()}
    for kind in Product:
        first, second = kind.operands
        result = LayerProduct(kind, written, own[first], own[second]).compute()
        same = LayerProduct(kind, expected, flat[first], flat[second]).compute()
        moved = canonical_operand(written, kind.absent, result.numpy())
        assert torch.equal(torch.from_numpy(moved), same)


@pytest.mark.parametrize(
    "geometry",
    [
        Conv2dGeometry(1, 3, 4, 4, 2, 1, padding=1),
        Conv2dGeometry(1, 3, 4, 4, 2, 1, stride=2),
        Conv2dGeometry(1, 3, 4, 4, 2, 2, stride=1),
        Conv2dGeometry(1, 3, 5, 4, 2, 2, stride=2),
        Conv2dGeometry(1, 3, 5, 5, 2, 3, dilation=2),
    ],
)
def test_windows_that_overlap_or_leave_gaps_are_no_matrix_product(
    geometry: Conv2dGeometry,
) -> None:
    assert isinstance(canonical_geometry(geometry), Conv2dGeometry)


@settings(max_examples=60, deadline=None)
@given(st.one_of(convolutions(), batched_matmuls), st.sampled_from(list(Product)))
def test_the_form_is_its_own_and_keeps_the_products(
    geometry: Geometry, kind: Product
) -> None:
    drawn = sparse_operands(geometry, "half", 1)
    first, second = (drawn[o] for o in kind.operands)
    product = LayerProduct(kind, geometry, first, second)
    own = product.canonical
    assert canonical_geometry(own.geometry) == own.geometry
    assert own.geometry.dense_macs == geometry.dense_macs
    assert own.counts == product.counts
    assert product.canonical_shape.first is None
