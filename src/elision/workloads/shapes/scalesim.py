"""SCALE-Sim topology files: one layer per line, as comma-separated values.

A convolution file has the columns *Layer name, IFMAP Height, IFMAP Width, Filter
Height, Filter Width, Channels, Num Filter, Strides*, with every line ended by a comma;
the stride may be one number or two. The format has no padding: its sizes are those of
the padded image, so a layer that is read has padding 0. It has neither batch, groups
nor dilation. A matrix-product file has the columns *Layer, M, N, K*: M rows, N columns
and K values summed.

SCALE-Sim counts ``ceil((H - R + t)/t)`` outputs, one more than the network has where
the stride leaves a rest; files are written with the rest trimmed off, so that both
agree.
"""

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from elision.common.files import write_text
from elision.products import Conv2dGeometry, Geometry, MatmulGeometry

__all__ = ["read_topology", "write_topology"]

_CONV_HEADER = (
    "Layer name",
    "IFMAP Height",
    "IFMAP Width",
    "Filter Height",
    "Filter Width",
    "Channels",
    "Num Filter",
    "Strides",
)
_GEMM_HEADER = ("Layer", "M", "N", "K")


def read_topology(path: str | Path) -> list[tuple[str, Geometry]]:
    """Read the layers of a SCALE-Sim topology file, batch 1.

    Raises:
        ValueError: the file has no header that is known or a line is wrong; the message
            names the file, the line and the column.
        OSError: the file cannot be read.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        lines = [
            (number, [cell.strip() for cell in cells])
            for number, cells in enumerate(csv.reader(file), 1)
        ]
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise ValueError(f"{path}: no header")
    number, header = lines[0]
    matmul = [cell.lower() for cell in header if cell] == ["layer", "m", "n", "k"]
    names = _GEMM_HEADER if matmul else _CONV_HEADER
    if not matmul and len([cell for cell in header if cell]) < len(names) - 1:
        raise ValueError(
            f"{path}, line {number}: expected the columns {', '.join(_CONV_HEADER)} or "
            f"{', '.join(_GEMM_HEADER)}, got {', '.join(header)}"
        )
    layers: list[tuple[str, Geometry]] = []
    for number, cells in lines[1:]:
        where = f"{path}, line {number}"
        name, *numbers = cells[:-1] if cells[-1] == "" else cells
        if not len(names) - 1 <= len(numbers) <= len(names) - matmul:
            raise ValueError(
                f"{where}: expected {len(names)} columns ({', '.join(names)}), "
                f"got {len(numbers) + 1}"
            )
        values = [
            _integer(text, column, where)
            for text, column in zip(numbers, [*names[1:], names[-1]], strict=False)
        ]
        try:
            layers.append((name, _geometry(values, matmul)))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return layers


def _integer(text: str, column: str, where: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{where}: {column} must be an integer >= 1, got {text!r}")
    return int(text)


def _geometry(values: list[int], matmul: bool) -> Geometry:
    if matmul:
        rows, columns, inner = values
        return MatmulGeometry(rows, inner, columns)
    height, width, taps, taps_across, channels, filters, *strides = values
    stride = (strides[0], strides[-1])
    kernel = (taps, taps_across)
    return Conv2dGeometry(1, channels, height, width, filters, kernel, stride)


def write_topology(
    layers: Iterable[tuple[str, Geometry]], path: str | Path, matmul: bool = False
) -> Path:
    """Write layers as a SCALE-Sim topology file.

    Args:
        layers: names and shapes.
        path: the file.
        matmul: write a matrix-product file: a convolution as the product of its patches
            with its filters. Otherwise a matrix product is written as a convolution of
            1x1 over ``rows`` pixels.

    Raises:
        ValueError: the format cannot say what a layer is (names it): groups or dilation
            in a convolution file, groups in a matrix-product file, a batch, or a comma
            in a name.
    """
    lines = []
    for name, geometry in layers:
        if "," in name or "\n" in name:
            raise ValueError(f"layer {name!r}: a name may hold no comma or line end")
        cells = _gemm_cells(name, geometry) if matmul else _conv_cells(name, geometry)
        lines.append(",".join(map(str, (name, *cells))) + ",")
    header = ",".join(_GEMM_HEADER if matmul else _CONV_HEADER) + ","
    write_text(Path(path), "\n".join([header, *lines]) + "\n")
    return Path(path)


def _gemm_cells(name: str, geometry: Geometry) -> tuple[int, ...]:
    conv = _convolution(name, geometry)
    _refuse(name, geometry, "a matrix-product", groups=conv.groups)
    rows = conv.batch * conv.out_height * conv.out_width
    inner = conv.in_channels * conv.kernel[0] * conv.kernel[1]
    return rows, conv.out_channels, inner


def _conv_cells(name: str, geometry: Geometry) -> tuple[int, ...]:
    conv = _convolution(name, geometry)
    if isinstance(geometry, MatmulGeometry):  # rows as pixels: there is no batch
        conv = replace(conv, batch=1, height=conv.batch)
    _refuse(
        name,
        geometry,
        "a convolution",
        batch=conv.batch,
        groups=conv.groups,
        dilation=max(conv.dilation),
    )
    height, width = (
        stride * (outputs - 1) + taps
        for stride, outputs, taps in zip(
            conv.stride,
            (conv.out_height, conv.out_width),
            conv.kernel,
            strict=True,
        )
    )
    return (
        *(height, width, *conv.kernel),
        *(conv.in_channels, conv.out_channels, *conv.stride),
    )


def _convolution(name: str, geometry: Geometry) -> Conv2dGeometry:
    convolution = geometry.reshaped_convolution
    if convolution is None:
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
