"""Layers as sizes of listings."""

import pytest

from elision.accelerators.spatial.schedule import layer_sizes, read, sizes_in
from elision.products import Conv2dGeometry, Geometry, MatmulGeometry

CONV = Conv2dGeometry(2, 6, 9, 8, 4, kernel=(3, 2), stride=2, padding=1, groups=2)


@pytest.mark.parametrize("name", ["conv.t2s", "gemm.t2s"])
def test_a_listing_does_the_multiplies_of_a_layer(name: str) -> None:
    sizes, passes = layer_sizes(CONV, sizes_in(name))
    assert passes * read(name, sizes).design().multiplies == CONV.dense_macs


def test_a_linear_layer_is_a_matrix_product() -> None:
    layer = MatmulGeometry(5, 6, 7)
    assert layer_sizes(layer, ("M", "N", "K", "II")).sizes == {"M": 5, "K": 6, "N": 7}


@pytest.mark.parametrize(
    ("layer", "names", "words"),
    [
        (CONV, ("X", "Y"), "sizes X, Y are not those of a layer"),
        (
            MatmulGeometry(5, 6, 7),
            tuple(sizes_in("conv.t2s")),
            "the listing a convolution",
        ),
        (
            CONV,
            ("N", "K", "C", "P", "Q", "R", "S"),
            "has stride .2, 2., for which the list",
        ),
        (
            Conv2dGeometry(1, 2, 9, 9, 4, kernel=3, stride=(2, 1)),
            tuple(sizes_in("conv.t2s")),
            "has stride .2, 1., for which the listing has no one T",
        ),
        (
            Conv2dGeometry(1, 2, 9, 9, 4, kernel=3, dilation=2),
            tuple(sizes_in("conv.t2s")),
            "has dilation",
        ),
    ],
)
def test_a_layer_without_a_name_for_its_sizes_is_refused(
    layer: Geometry, names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        layer_sizes(layer, names)
