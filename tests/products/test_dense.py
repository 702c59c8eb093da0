"""Dense products against the plain layers that they stand for, to the last bit."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from elision.products import (
    Conv1dGeometry,
    Conv2dGeometry,
    Conv3dGeometry,
    Convolution,
    ConvolutionParameters,
    ConvTranspose1dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
    TransposedConvolution,
    dense,
)

GEOMETRIES = {
    "matmul": MatmulGeometry(5, 7, 3),
    "line": Conv1dGeometry(3, 4, 9, 6, 3, 2, 1, 2, 2),
    "convolution": Conv2dGeometry(3, 4, 9, 8, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2),
    "block": Conv3dGeometry(2, 4, 5, 6, 7, 6, (3, 2, 1), (1, 2, 1), (1, 0, 2)),
    "line up": ConvTranspose1dGeometry.of((3, 4, 5), (4, 6, 3), 2, 1, 1),
    "up": ConvTranspose2dGeometry.of(
        (3, 4, 5, 6), (4, 3, 3, 2), (2, 3), (1, 0), (0, 2), (2, 1), groups=2
    ),
    "block up": ConvTranspose3dGeometry.of((2, 4, 3, 2, 4), (4, 3, 2, 3, 1), 2, 0, 1),
}

FUNCTIONS: dict[str, Any] = {
    "matmul": F.linear,
    "conv1d": F.conv1d,
    "conv2d": F.conv2d,
    "conv3d": F.conv3d,
    "conv_transpose1d": F.conv_transpose1d,
    "conv_transpose2d": F.conv_transpose2d,
    "conv_transpose3d": F.conv_transpose3d,
}


def convolution_of(geometry: Geometry) -> ConvolutionParameters | None:
    if isinstance(geometry, Convolution | TransposedConvolution):
        return geometry.parameters
    return None


def drawn(geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x, w, g = (
        torch.randn(geometry.shape_of(name))
        for name in ("input", "weight", "grad_output")
    )
    return x, w, g


def plain(x: Tensor, w: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    how = convolution_of(geometry)
    own = {} if how is None else how._asdict()
    if own and not own.pop("transposed"):
        del own["output_padding"]
    return FUNCTIONS[geometry.layer](x, w, b, **own)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=[*GEOMETRIES])
def test_a_step_is_the_plain_layer_s_to_the_last_bit(geometry: Geometry) -> None:
    x, w, g = (value.requires_grad_() for value in drawn(geometry))
    bias = torch.randn(g.shape[1], requires_grad=True)
    y = plain(x, w, bias, geometry)
    expected = torch.autograd.grad(y, (x, w, bias), g)
    x, w, g, b = (value.detach() for value in (x, w, g, bias))
    convolution, shapes = convolution_of(geometry), (x.shape, w.shape)
    assert torch.equal(dense.forward(x, w, b, convolution), y)
    found = dense.gradients(g, x, w, convolution, shapes=shapes, bias=True)
    assert all(
        a is not None and torch.equal(a, e)
        for a, e in zip(found, expected, strict=True)
    )
    operands = {"input": x, "weight": w, "grad_output": g}
    for kind, result in (
        (Product.FORWARD, plain(x, w, torch.zeros_like(b), geometry)),
        (Product.INPUT_GRAD, expected[0]),
        (Product.WEIGHT_GRAD, expected[1]),
    ):
        first, second = (operands[name] for name in kind.operands)
        assert torch.equal(geometry.compute(kind, first, second), result)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=[*GEOMETRIES])
def test_gradients_not_wanted_are_left_out(geometry: Geometry) -> None:
    x, w, g = drawn(geometry)
    convolution, shapes = convolution_of(geometry), (x.shape, w.shape)
    for given in ((x, None, False), (None, w, False), (None, None, True)):
        first, second, bias = given
        found = dense.gradients(g, first, second, convolution, shapes=shapes, bias=bias)
        assert [value is not None for value in found] == [
            second is not None,
            first is not None,
            bias,
        ]
    assert dense.gradients(g, None, None, convolution, shapes=shapes) == (None,) * 3


def test_an_unchecked_product_computes_like_a_checked_one_and_tells_what_fits() -> None:
    geometry = MatmulGeometry(2, 3, 4)
    x, w = torch.ones(2, 3), torch.ones(4, 3)
    unchecked = LayerProduct.unchecked(Product.FORWARD, geometry, x, w)
    checked = LayerProduct(Product.FORWARD, geometry, x, w)
    assert unchecked.fits
    assert repr(unchecked) == repr(checked)
    assert torch.equal(unchecked.compute(), checked.compute())
    assert not LayerProduct.unchecked(Product.FORWARD, geometry, x, w.T).fits


@pytest.mark.parametrize("dtype", [torch.cfloat, torch.cdouble, torch.float64])
def test_products_of_complex_numbers_are_autograds(dtype: torch.dtype) -> None:
    geometry = MatmulGeometry(5, 7, 3)
    torch.manual_seed(0)
    x, w, g = (
        torch.randn(geometry.shape_of(name), dtype=dtype)
        for name in ("input", "weight", "grad_output")
    )
    x.requires_grad_()
    w.requires_grad_()
    y = F.linear(x, w)
    dx, dw = torch.autograd.grad(y, (x, w), g)
    x, w = x.detach(), w.detach()
    for kind, operands, expected in (
        (Product.FORWARD, (x, w), y.detach()),
        (Product.INPUT_GRAD, (g, w), dx),
        (Product.WEIGHT_GRAD, (g, x), dw),
    ):
        found = LayerProduct(kind, geometry, *operands).compute()
        torch.testing.assert_close(found, expected)
