"""Small layers, drawn by hypothesis, and integer operands for them."""

import hypothesis.strategies as st
import torch

from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product

matmuls = st.builds(
    MatmulGeometry,
    rows=st.integers(1, 9),
    inner=st.integers(1, 9),
    columns=st.integers(1, 9),
)


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2dGeometry:
    groups = draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = draw(st.integers(1, 2))
    reach = dilation * (max(kernel) - 1) + 1
    return Conv2dGeometry(
        batch=draw(st.integers(1, 2)),
        in_channels=groups * draw(st.integers(1, 2)),
        height=draw(st.integers(reach, reach + 3)),
        width=draw(st.integers(reach, reach + 3)),
        out_channels=groups * draw(st.integers(1, 3)),
        kernel=kernel,
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        dilation=dilation,
        groups=groups,
    )


geometries = matmuls | convolutions()
sides = st.integers(1, 6)


def with_values(kind: Product, geometry, seed: int = 0) -> LayerProduct:
    """A product of small integers, so that every sum is exact in floating point."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str) -> torch.Tensor:
        shape = geometry.shape_of(name)
        return torch.randint(-4, 5, shape, generator=generator).double()

    tensors = {name: draw(name) for name in ("input", "weight", "grad_output")}
    first, second = (tensors[name] for name in kind.operands)
    return LayerProduct(kind, geometry, first, second)


def autograd(geometry, input, weight, grad_output):
    """(dX, dW) as torch.autograd computes them."""
    input, weight = input.clone().requires_grad_(), weight.clone().requires_grad_()
    if isinstance(geometry, MatmulGeometry):
        output = torch.nn.functional.linear(input, weight)
    else:
        output = torch.nn.functional.conv2d(
            input,
            weight,
            stride=geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
            groups=geometry.groups,
        )
    return torch.autograd.grad(output, (input, weight), grad_output)
