"""Layers as a topology file that SCALE-Sim reads to the same products."""

from collections.abc import Iterable
from pathlib import Path

from elision.common.cells import cell
from elision.common.files import write_text
from elision.products import Conv2dGeometry, Geometry, MatmulGeometry, Product
from elision.workloads.shapes.scalesim.columns import CONVOLUTION, DEPTHWISE, PRODUCT

__all__ = ["write_topology"]


def write_topology(
    layers: Iterable[tuple[str, Geometry]], path: str | Path, matmul: bool = False
) -> Path:
    """Write layers as a SCALE-Sim topology file.

    Args:
        layers: names and shapes.
        path: the file.
        matmul: write a matrix-product file: a convolution as the product of its patches
            with its filters. Otherwise a matrix product is written in SCALE-Sim's own
            form, filters of 1 x K on an image of K columns, and read back as one. The
            name of a depthwise convolution gets the mark ``DP``.

    Raises:
        ValueError: the format cannot say what a layer is (names it): groups or dilation
            in a convolution file, groups in a matrix-product file, a batch, a comma in a
            name, or ``DP`` in that of a layer that is not depthwise.
    """
    lines = []
    for name, geometry in layers:
        if name != name.strip() or not name or name[0] == "#" or {*name} & {*',"\n\r'}:
            raise ValueError(
                f"layer {name!r}: a name may hold no comma, quote or line end, and must "
                "not be empty or begin with # or a space"
            )
        cells = _gemm_cells(name, geometry) if matmul else _conv_cells(name, geometry)
        lines.append(",".join([cell(str(cells[0])), *map(str, cells[1:])]) + ",")
    header = ",".join(PRODUCT if matmul else CONVOLUTION) + ","
    write_text(Path(path), "\n".join([header, *lines]) + "\n")
    return Path(path)


def _gemm_cells(name: str, geometry: Geometry) -> tuple[str | int, ...]:
    conv = _convolution(name, geometry)
    _refuse(name, geometry, "a matrix-product", groups=conv.groups)
    rows = conv.batch * conv.out_height * conv.out_width
    inner = conv.in_channels * conv.kernel[0] * conv.kernel[1]
    return name, rows, conv.out_channels, inner


def _conv_cells(name: str, geometry: Geometry) -> tuple[str | int, ...]:
    conv = _convolution(name, geometry)
    depthwise = geometry.is_depthwise
    if DEPTHWISE in name and not depthwise:
        raise ValueError(
            f"layer {name!r}: SCALE-Sim reads a name with {DEPTHWISE!r} as a depthwise "
            "layer; rename it"
        )
    if isinstance(geometry, MatmulGeometry):
        inner = geometry.inner
        return name, geometry.rows, inner, 1, inner, 1, geometry.columns, 1
    groups = 1 if depthwise else conv.groups
    dilation = max(conv.dilation)
    kind = "a convolution"
    _refuse(name, geometry, kind, batch=conv.batch, groups=groups, dilation=dilation)
    height, width = (
        stride * (outputs - 1) + taps
        for stride, outputs, taps in zip(
            conv.stride, conv.out_sizes, conv.kernel, strict=True
        )
    )
    if depthwise and DEPTHWISE not in name:
        name = f"{name} {DEPTHWISE}"
    filters = conv.out_channels // (conv.groups if depthwise else 1)
    sizes = (height, width, *conv.kernel, conv.in_channels, filters)
    # SCALE-Sim 3 reads one stride, for both axes, and takes a second for a sparsity.
    strides = conv.stride if conv.stride[0] != conv.stride[1] else conv.stride[:1]
    return name, *sizes, *strides


def _convolution(name: str, geometry: Geometry) -> Conv2dGeometry:
    convolution = geometry.reshaped_convolution
    is_plain = geometry.convolution_product(Product.FORWARD) is Product.FORWARD
    if convolution is None or not is_plain:
        raise ValueError(
            f"layer {name!r}: a topology file has no such layer: {geometry}"
        )
    return convolution


def _refuse(name: str, geometry: Geometry, kind: str, **features: int) -> None:
    for feature, value in features.items():
        if value != 1:
            raise ValueError(
                f"layer {name!r}: {kind} topology file has no {feature}, and this layer "
                f"has {feature} {value}: {geometry}"
            )
