"""Winograd's transforms: proved exactly, all products against torch, costs in closed form."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision import winograd
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

#: Odd sizes, all extents different, so that no two indices can be swapped unseen.
LAYERS = {
    "3x3": Conv2dGeometry(2, 4, 7, 9, 5, 3, 1, 1),
    "no padding": Conv2dGeometry(1, 3, 11, 6, 2, 3),
    "groups": Conv2dGeometry(2, 6, 5, 8, 9, 3, 1, 1, 1, 3),
    "depthwise": Conv2dGeometry(1, 5, 7, 6, 5, 3, 1, 1, 1, 5),
    "5x3": Conv2dGeometry(1, 3, 9, 7, 4, (5, 3), 1, (2, 0)),
    "1x3": Conv2dGeometry(1, 3, 5, 7, 4, (1, 3), 1, (0, 1)),
    "1x1": Conv2dGeometry(2, 3, 5, 4, 7, 1),
    "stride 2": Conv2dGeometry(2, 3, 9, 12, 4, 3, 2, 1),
    "stride 3, 7x7": Conv2dGeometry(1, 3, 17, 14, 4, 7, 3, 3),
    "stride 2, 1x1": Conv2dGeometry(1, 3, 8, 7, 4, 1, 2),
    "stride (2, 1), groups": Conv2dGeometry(1, 4, 8, 7, 6, 3, (2, 1), 1, 1, 2),
    "dilation 2": Conv2dGeometry(1, 3, 11, 9, 4, 3, 1, 2, 2),
    "dilation 3 over few outputs": Conv2dGeometry(1, 2, 8, 13, 3, 3, 1, 0, (3, 2)),
    "dilated rows, strided columns": Conv2dGeometry(
        1, 2, 9, 9, 3, 3, (1, 2), 1, (2, 1)
    ),
    "one pixel": Conv2dGeometry(1, 2, 1, 1, 3, 3, 1, 1),
}


def products(layer, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn(layer.shape_of(name), generator=generator, dtype=dtype)
        for name in ("input", "weight", "grad_output")
    }
    for kind in Product:
        first, second = (values[name] for name in kind.operands)
        yield LayerProduct(kind, layer, first, second)


@pytest.mark.parametrize("m", [1, 2, 4, 6])
@pytest.mark.parametrize("name", LAYERS)
def test_all_products_are_those_of_torch(name, m):
    for product in products(LAYERS[name]):
        expected = product.compute()
        found = winograd.compute(product, m)
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_products_of_any_shape(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    groups = draw(1, 2)
    axes = [(draw(1, 4), draw(1, 3), draw(0, 2), draw(1, 3)) for _ in range(2)]
    axes = [(r, t, p, d if t == 1 else 1) for r, t, p, d in axes]
    kernel, stride, padding, dilation = zip(*axes, strict=True)
    sizes = [d * (r - 1) + draw(1, 9) for r, _, _, d in axes]
    layer = Conv2dGeometry(
        draw(1, 2), groups * draw(1, 3), *sizes, groups * draw(1, 3),
        kernel, stride, padding, dilation, groups,
    )  # fmt: skip
    m = draw(1, 4)
    for product in products(layer):
        torch.testing.assert_close(
            winograd.compute(product, m), product.compute(), rtol=0, atol=1e-10
        )


def test_the_gradients_are_those_of_autograd():
    layer = LAYERS["stride (2, 1), groups"]
    forward, input_grad, weight_grad = products(layer)
    x = forward.first.clone().requires_grad_()
    w = forward.second.clone().requires_grad_()
    y = winograd.compute(LayerProduct(Product.FORWARD, layer, x, w), 4)
    dx, dw = torch.autograd.grad(y, (x, w), input_grad.first)
    torch.testing.assert_close(winograd.compute(input_grad, 4), dx)
    torch.testing.assert_close(winograd.compute(weight_grad, 4), dw)


@pytest.mark.parametrize(("m", "equations"), [(2, 24), (4, 72), (6, 144)])
def test_the_identity_is_proved_and_any_flipped_entry_refuted(m, equations):
    made = winograd.transforms(m, 3)
    assert made.prove() == winograd.Proof(equations)
    for matrix in ("inverse", "filter", "data"):
        for i, row in enumerate(getattr(made, matrix)):
            for j, value in enumerate(row):
                if value:
                    wrong = made.with_entry(matrix, i, j, -value)
                    violated = wrong.prove().violated
                    assert violated is not None
                    o, a, b = violated
                    rows = zip(wrong.inverse[o], wrong.filter, wrong.data, strict=True)
                    assert sum(c * g[a] * d[b] for c, g, d in rows) != (b == o + a)


def test_matrices_of_the_literature():
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    two, four, six = (winograd.transforms(m, 3) for m in (2, 4, 6))
    assert two.filter == (
        (-1, 0, 0), (half, half, half), (half, -half, half), (0, 0, 1),
    )  # fmt: skip
    assert two.data == ((-1, 0, 1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1))
    assert two.inverse == ((1, 1, 1, 0), (0, 1, -1, 1))
    assert four.filter[0] == (quarter, 0, 0)
    assert four.filter[3] == (Fraction(1, 24), Fraction(1, 12), Fraction(1, 6))
    assert six.filter[1] == (Fraction(-2, 9),) * 3
    assert six.filter[5] == (Fraction(32, 45), Fraction(16, 45), Fraction(8, 45))
    assert six.data[0] == (-1, 0, Fraction(21, 4), 0, Fraction(-21, 4), 0, 1, 0)


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 4),
    r=st.integers(1, 4),
    values=st.permutations(
        [Fraction(n, d) for n in range(-3, 4) for d in (2, 3, 5) if n]
    ),
)
def test_any_different_points_give_a_proved_filter(m, r, values):
    points = list(dict.fromkeys(values))[: m + r - 2]
    proof = winograd.transforms(m, r, points).prove()
    assert proof == winograd.Proof(m * r * (m + r - 1))


@pytest.mark.parametrize(
    ("side", "m", "saving"),
    [
        (56, 2, 2.25), (28, 2, 2.25), (14, 2, 2.25), (7, 2, 1.72),
        (56, 4, 4.00), (28, 4, 4.00), (14, 4, 3.06), (7, 4, 3.06),
        (24, 6, 5.0625), (56, 6, 4.41), (28, 6, 4.41), (14, 6, 3.06), (7, 6, 1.72),
    ],
)  # fmt: skip
def test_products_saved(side, m, saving):
    layer = Conv2dGeometry(3, 32, side, side, 64, 3, 1, 1)
    for kind in Product:
        found = winograd.cost(layer, m, kind)
        assert found.saving == pytest.approx(saving, abs=0.005)
        tiles = math.ceil(side / m) ** 2
        assert found.products == 3 * tiles * 32 * 64 * (m + 2) ** 2


@pytest.mark.parametrize(
    ("m", "data", "filters", "inverse"),
    [
        (2, (32, 0), (28, 42), (24, 0)),
        (4, (192, 144), (72, 117), (140, 60)),
        (6, (576, 448), (132, 198), (448, 280)),
    ],
)
def test_operations_of_the_transforms(m, data, filters, inverse):
    layer = Conv2dGeometry(1, 1, m, m, 1, 3, 1, 1)  # one tile
    found = winograd.cost(layer, m, Product.FORWARD).operations
    pairs = zip(("first", "second", "result"), (data, filters, inverse), strict=True)
    for stage, counts in pairs:
        assert found[stage] == winograd.Operations(*counts)
    # The gradients' transforms are transposes: as many multiplications, and one addition
    # less for each row more. Of the tiles' overlap, every value is added, too.
    input_grad, weight_grad = (
        winograd.cost(layer, m, kind).operations
        for kind in (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
    )
    n = m + 2
    for found_there, forward, rows, columns, overlap in (
        (input_grad["first"], found["result"], m, n, 0),
        (input_grad["result"], found["first"], n, n, n * n - m * m),
        (weight_grad["first"], found["result"], m, n, 0),
        (weight_grad["result"], found["second"], n, 3, 0),
    ):
        fewer = (rows + columns) * (columns - rows)
        assert found_there.adds == forward.adds - fewer + overlap
        assert found_there.multiplies == forward.multiplies
    assert input_grad["second"] == found["second"]
    assert weight_grad["second"] == found["first"]


@pytest.mark.parametrize(("m", "moved"), [(2, 8.7), (4, 5.35), (6, 5.0)])
def test_words_that_the_activations_move(m, moved):
    # Over the compulsory words of the activations (padded input and output), 56x56,
    # 64 channels: the three stages' reads and writes, without those of the filters.
    layer = Conv2dGeometry(1, 64, 56, 56, 64, 3, 1, 1)
    found = winograd.cost(layer, m, Product.FORWARD)
    filters = found.words["second"]
    transformed = 64 * 64 * (m + 2) ** 2
    words = sum(found.words.values()) - filters - transformed
    assert words / (64 * (58**2 + 56**2)) == pytest.approx(moved, abs=0.05)
    assert found.bytes_moved == 4 * sum(found.words.values())
    assert found.direct_bytes == 4 * 64 * (2 * 56**2 + 64 * 9)


def test_storage_rounds_between_the_stages():
    layer = Conv2dGeometry(1, 16, 12, 12, 8, 3, 1, 1)
    for product in products(layer, torch.float32):
        exact = LayerProduct(
            product.kind, layer, product.first.double(), product.second.double()
        ).compute()
        errors = {
            (m, dtype): (
                (winograd.compute(product, m, dtype) - exact).norm() / exact.norm()
            )
            for m in (2, 4)
            for dtype in (None, torch.float16, torch.bfloat16)
        }
        for m in (2, 4):
            assert errors[m, None] < 1e-5
            assert 1e-4 < errors[m, torch.float16] < errors[m, torch.bfloat16] < 0.1
        for dtype in (torch.float16, torch.bfloat16):
            assert errors[4, dtype] > 2 * errors[2, dtype]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: winograd.transforms(0, 3),
            r"transforms\(m=0\): must be an integer >= 1",
        ),
        (
            lambda: winograd.transforms(2, 2.5),
            r"transforms\(r=2.5\): must be an integer",
        ),
        (lambda: winograd.transforms(2, 3, (0, 1)), r"F\(2, 3\) needs 3 different"),
        (lambda: winograd.transforms(2, 3, (0, 1, 0.5)), "3 different rationals"),
        (lambda: winograd.transforms(2, 3, (0, 1, True)), "3 different rationals"),
        (
            lambda: winograd.cost(
                Conv2dGeometry(1, 1, 9, 9, 1, 3, 2, 1, 2), 4, Product.FORWARD
            ),
            r"stride \(2, 2\) with dilation \(2, 2\)",
        ),
        (
            lambda: winograd.compute(LayerProduct(Product.FORWARD, LAYERS["3x3"]), 4),
            "has no operands",
        ),
        (
            lambda: winograd.compute(
                LayerProduct(Product.FORWARD, MatmulGeometry(1, 2, 3)), 4
            ),
            "is no 2-D convolution",
        ),
        (
            lambda: winograd.compute(next(products(LAYERS["3x3"])), -1),
            r"compute\(m=-1\)",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
