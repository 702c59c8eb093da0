"""Small layers, drawn by hypothesis, and integer operands for them."""

from typing import Any

import hypothesis.strategies as st
import torch

from elision.products import (
    OPERANDS,
    Conv1dGeometry,
    Conv2dGeometry,
    Conv3dGeometry,
    Convolution,
    ConvTranspose1dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
    TransposedConvolution,
)

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


@st.composite
def lines(draw: st.DrawFn) -> Conv1dGeometry:
    groups = draw(st.integers(1, 3))
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    reach = dilation * (kernel - 1) + 1
    return Conv1dGeometry(
        batch=draw(st.integers(1, 2)),
        in_channels=groups * draw(st.integers(1, 2)),
        length=draw(st.integers(reach, reach + 4)),
        out_channels=groups * draw(st.integers(1, 3)),
        kernel=kernel,
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        dilation=dilation,
        groups=groups,
    )


@st.composite
def transposed_convolutions(draw: st.DrawFn, rank: int = 2) -> Any:
    groups = draw(st.integers(1, 2))
    channels = groups * draw(st.integers(1, 2))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    # Less padding than the smallest kernel's reach leaves an output pixel.
    reach = dilation * (min(kernel) - 1) + 1
    kinds = (ConvTranspose1dGeometry, ConvTranspose2dGeometry, ConvTranspose3dGeometry)
    return kinds[rank - 1].of(
        (
            draw(st.integers(1, 2)),
            channels,
            *(draw(st.integers(1, 3)) for _ in range(rank)),
        ),
        (channels, draw(st.integers(1, 2)), *kernel),
        stride=stride,
        padding=draw(st.integers(0, (reach - 1) // 2)),
        output_padding=draw(st.integers(0, stride - 1)),
        dilation=dilation,
        groups=groups,
    )


@st.composite
def convolutions_3d(draw: st.DrawFn) -> Conv3dGeometry:
    groups = draw(st.integers(1, 2))
    axis = st.integers(1, 2)
    kernel = (draw(axis), draw(axis), draw(axis))
    dilation = draw(axis)
    size = st.integers(dilation + 1, dilation + 2)
    return Conv3dGeometry(
        *(draw(axis), groups * draw(axis), draw(size), draw(size), draw(size)),
        groups * draw(axis),
        kernel,
        stride=(draw(axis), draw(axis), draw(axis)),
        padding=draw(st.integers(0, 1)),
        dilation=dilation,
        groups=groups,
    )


batched_matmuls = st.builds(
    MatmulGeometry,
    rows=st.integers(1, 4),
    inner=st.integers(1, 5),
    columns=st.integers(1, 4),
    batch=st.integers(2, 3),
)
geometries = matmuls | convolutions()
#: What machines of planes and matrices run.
planar_geometries = (
    geometries
    | batched_matmuls
    | transposed_convolutions()
    | lines()
    | transposed_convolutions(1)
)
#: Layers of three axes, which they refuse.
deep_geometries = convolutions_3d() | transposed_convolutions(3)
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


def forward(geometry: Geometry, input, weight):
    """The layer itself, as a user of torch writes it."""
    functional = torch.nn.functional
    if isinstance(geometry, MatmulGeometry):
        return input @ weight.transpose(-2, -1)
    if isinstance(geometry, TransposedConvolution):
        conv = geometry.convolution
        rank = len(conv.kernel)
        sizes = zip(
            geometry.shape_of("input")[2:],
            geometry.shape_of("grad_output")[2:],
            *(conv.kernel, conv.stride, conv.padding, conv.dilation),
            strict=True,
        )
        extra = [
            out - ((size - 1) * stride - 2 * padding + dilation * (taps - 1) + 1)
            for size, out, taps, stride, padding, dilation in sizes
        ]
        convolve = (
            functional.conv_transpose1d,
            functional.conv_transpose2d,
            functional.conv_transpose3d,
        )[rank - 1]
        return convolve(
            input,
            weight,
            stride=conv.stride,
            padding=conv.padding,
            output_padding=extra,
            dilation=conv.dilation,
            groups=conv.groups,
        )
    assert isinstance(geometry, Convolution)
    functions = (functional.conv1d, functional.conv2d, functional.conv3d)
    return functions[len(geometry.kernel) - 1](
        input,
        weight,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
    )


def autograd(geometry, input, weight, grad_output):
    """(dX, dW) as torch.autograd computes them."""
    input, weight = input.clone().requires_grad_(), weight.clone().requires_grad_()
    output = forward(geometry, input, weight)
    return torch.autograd.grad(output, (input, weight), grad_output)


def sparse_operands(
    geometry: Geometry, pattern: str, seed: int
) -> dict[str, torch.Tensor]:
    """Small integers in float64: ``"dense"``, ``"empty"``, ``"half"`` or ``"slices"``.

    ``"slices"`` has whole slices of zeros along the first axis.
    """
    generator = torch.Generator().manual_seed(seed)
    operands = {}
    for name in OPERANDS:
        shape = geometry.shape_of(name)
        values = torch.randint(1, 5, shape, generator=generator).double()
        if pattern == "empty":
            values.zero_()
        elif pattern == "half":
            values *= torch.rand(shape, generator=generator) < 0.5
        elif pattern == "slices":
            values[torch.rand(shape[0], generator=generator) < 0.5] = 0
        operands[name] = values
    return operands
