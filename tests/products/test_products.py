"""Products against autograd and against enumeration of all pairs."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elision import Conv2dGeometry, LayerProduct, MatmulGeometry, Product


@st.composite
def geometries(draw: st.DrawFn) -> Conv2dGeometry:
    small = st.integers(1, 3)
    groups = draw(st.sampled_from([1, 2]))
    kernel = (draw(small), draw(small))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    return Conv2dGeometry(
        draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        reach[0] + draw(st.integers(0, 3)),
        reach[1] + draw(st.integers(0, 3)),
        groups * draw(st.integers(1, 2)),
        kernel,
        stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        padding=(draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        dilation=dilation,
        groups=groups,
    )


def operands(
    geometry: Conv2dGeometry, density: float, seed: int
) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(
            rng.integers(1, 9, geometry.shape_of(name))
            * (rng.random(geometry.shape_of(name)) < density)
        ).double()
        for name in ("input", "weight", "grad_output")
    }


def products(
    geometry: Conv2dGeometry, drawn: dict[str, torch.Tensor]
) -> list[LayerProduct]:
    return [
        LayerProduct(p, geometry, drawn[p.operands[0]], drawn[p.operands[1]])
        for p in Product
    ]


def enumerate_counts(product: LayerProduct) -> tuple[int, int]:
    """Every pair of non-zeros that share their plane indices, and the valid ones."""
    g = product.geometry
    assert isinstance(g, Conv2dGeometry)
    c, k = g.in_channels // g.groups, g.out_channels // g.groups

    def keys(operand: str, index: tuple[int, ...]) -> dict[str, int]:
        a, b, y, x = index
        if operand == "input":
            return {"n": a, "c": b, "g": b // c, "iy": y, "ix": x}
        if operand == "weight":
            return {"k": a, "c": a // k * c + b, "g": a // k, "r": y, "s": x}
        return {"n": a, "k": b, "g": b // k, "oy": y, "ox": x}

    def valid(i: dict[str, int]) -> bool:
        for axis, (image, tap, out) in enumerate(
            (("iy", "r", "oy"), ("ix", "s", "ox"))
        ):
            t, p, d = g.stride[axis], g.padding[axis], g.dilation[axis]
            size = (g.height, g.width)[axis]
            outs = (g.out_height, g.out_width)[axis]
            if not any(
                o * t - p + r * d == y
                for o in ([i[out]] if out in i else range(outs))
                for r in ([i[tap]] if tap in i else range(g.kernel[axis]))
                for y in ([i[image]] if image in i else range(size))
            ):
                return False
        return True

    first, second = product.operands.items()
    left = [keys(first[0], tuple(ix)) for ix in first[1].nonzero().tolist()]
    right = [keys(second[0], tuple(ix)) for ix in second[1].nonzero().tolist()]
    pairs = [
        a | b
        for a, b in itertools.product(left, right)
        if all(
            a[key] == b[key] for key in ("n", "c", "k", "g") if key in a and key in b
        )
    ]
    return len(pairs), sum(valid(pair) for pair in pairs)


def as_counted(product: LayerProduct) -> LayerProduct:
    """The convolution whose pairs are counted: windows that tile meet as rows do."""
    own = product.canonical
    kind, geometry = own.geometry.as_convolution(own.kind)
    first, second = (
        torch.as_tensor(own.geometry.to_convolution(name, value))
        for name, value in own.operands.items()
    )
    return LayerProduct(kind, geometry, first, second)


@settings(deadline=None, max_examples=40)
@example(Conv2dGeometry(1, 1, 1, 2, 1, 1), 0.3, 98)
@given(geometries(), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 99))
def test_counts_equal_enumeration(
    geometry: Conv2dGeometry, density: float, seed: int
) -> None:
    for product in products(geometry, operands(geometry, density, seed)):
        counts = product.counts
        assert (counts.nonzero, counts.valid) == enumerate_counts(as_counted(product))
        assert counts.valid == enumerate_counts(product)[1]


@settings(deadline=None, max_examples=30)
@given(geometries(), st.integers(0, 99))
def test_products_equal_autograd(geometry: Conv2dGeometry, seed: int) -> None:
    drawn = operands(geometry, 0.7, seed)
    x, w = drawn["input"].requires_grad_(), drawn["weight"].requires_grad_()
    y = torch.nn.functional.conv2d(
        x,
        w,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
    )
    y.backward(drawn["grad_output"])
    plain = {name: tensor.detach() for name, tensor in drawn.items()}
    computed = [product.compute() for product in products(geometry, plain)]
    assert x.grad is not None
    assert w.grad is not None
    assert all(
        torch.equal(a, b) for a, b in zip(computed, (y, x.grad, w.grad), strict=True)
    )


def test_matmul_products_equal_autograd() -> None:
    geometry = MatmulGeometry(3, 4, 5)
    drawn = {
        n: torch.randint(-2, 3, geometry.shape_of(n)).double()
        for n in ("input", "weight", "grad_output")
    }
    y, dx, dw = (
        LayerProduct(p, geometry, drawn[p.operands[0]], drawn[p.operands[1]]).compute()
        for p in Product
    )
    assert torch.equal(y, drawn["input"] @ drawn["weight"].T)
    assert torch.equal(dx, drawn["grad_output"] @ drawn["weight"])
    assert torch.equal(dw, drawn["grad_output"].T @ drawn["input"])


def test_wrong_shapes_and_values_are_named() -> None:
    geometry = MatmulGeometry(2, 3, 4)
    with pytest.raises(ValueError, match=r"input has shape \(3, 2\)"):
        LayerProduct(Product.FORWARD, geometry, torch.ones(3, 2), torch.ones(4, 3))
    bad = torch.full((2, 3), torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        _ = LayerProduct(Product.FORWARD, geometry, bad, torch.ones(4, 3)).counts
