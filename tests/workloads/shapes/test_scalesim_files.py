"""SCALE-Sim topology files: read, written, and every kind of bad line named."""

from pathlib import Path

import pytest

from elision.products import (
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    Geometry,
    MatmulGeometry,
)
from elision.workloads.shapes import read_topology, write_topology

HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
    "Num Filter, Strides,\n"
)
LINES = """\
Conv1, 230, 230, 7, 7, 3, 64, 2,

Rect, 10, 20, 3, 1, 8, 16, 2, 1,
FC, 1, 1, 1, 1, 512, 1000, 1
"""


def test_convolutions(tmp_path):
    path = tmp_path / "net.csv"
    path.write_text(HEADER + LINES)
    assert read_topology(path) == [
        ("Conv1", Conv2dGeometry(1, 3, 230, 230, 64, (7, 7), (2, 2))),
        ("Rect", Conv2dGeometry(1, 8, 10, 20, 16, (3, 1), (2, 1))),
        ("FC", Conv2dGeometry(1, 512, 1, 1, 1000, (1, 1))),
    ]


def test_matrix_products(tmp_path):
    path = tmp_path / "gemm.csv"
    path.write_text("Layer,M,N,K,\nproj,128,256,64,\n")
    assert read_topology(path) == [("proj", MatmulGeometry(128, 64, 256))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bad, 8, 8, 3, 3, 4,", "line 2: expected 8 columns .* got 6"),
        ("bad, 8, 8, 3, 3, 4, many, 1,", "line 2: Num Filter .* got 'many'"),
        ("bad, 8, 8, 3, 3, 4, -1, 1,", "line 2: Num Filter .* got '-1'"),
        ("bad, 8, 8, 3, 3, 4, 4, 0,", "line 2: Strides .* got '0'"),
        ("bad, 8, 8, 3, 9, 4, 4, 1,", "line 2: .*does not fit"),
        ("bad, 8, 8, 3, 3, 4, 4, 1, 1, 1,", "line 2: expected 8 columns"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "net.csv"
    path.write_text(HEADER + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_topology(path)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_another_kind_of_file(tmp_path, text):
    path = tmp_path / "net.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"no header|line 1: expected the columns"):
        read_topology(path)


def test_written_and_read_again(tmp_path):
    """Padding becomes part of the image, and a rest of the stride is trimmed."""
    layers = [
        ("stem", Conv2dGeometry(1, 3, 224, 224, 64, 7, 2, 3)),
        ("same", Conv2dGeometry(1, 64, 56, 56, 64, 3, 1, 1)),
        ("strided", Conv2dGeometry(1, 64, 56, 56, 128, 1, (2, 1))),
        ("fc", MatmulGeometry(4, 512, 10)),
    ]
    read = read_topology(write_topology(layers, tmp_path / "net.csv"))
    assert [name for name, _ in read] == [name for name, _ in layers]
    for (_, back), (_, geometry) in zip(read, layers, strict=True):
        assert back.dense_macs == geometry.dense_macs
    # 56 pixels in steps of 2: the last one is never read.
    assert (read[2][1].height, read[2][1].width) == (55, 56)
    assert (read[0][1].height, read[0][1].width) == (229, 229)


def test_written_as_matrix_products(tmp_path):
    conv = Conv2dGeometry(2, 3, 8, 8, 16, 3, 1, 1)
    path = write_topology([("c", conv)], tmp_path / "gemm.csv", matmul=True)
    assert read_topology(path) == [("c", MatmulGeometry(2 * 64, 27, 16))]
    assert conv.dense_macs == read_topology(path)[0][1].dense_macs


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("g", {"groups": 2}, "'g': .* no groups"),
        ("d", {"dilation": 2}, "'d': .* no dilation"),
        ("b", {"batch": 2}, "'b': .* no batch"),
        ("a,b", {}, "no comma"),
    ],
)
def test_what_the_format_cannot_say(tmp_path, name, how, message):
    sizes = {"batch": 1, "in_channels": 4, "height": 8, "width": 8, "out_channels": 4}
    geometry = Conv2dGeometry(**(sizes | {"kernel": 3} | how))
    path = tmp_path / "net.csv"
    with pytest.raises(ValueError, match=message):
        write_topology([(name, geometry)], path)
    assert not path.exists()


@pytest.mark.parametrize("matmul", [False, True])
@pytest.mark.parametrize(
    "geometry",
    [
        MatmulGeometry(2, 3, 4, batch=2),
        ConvTranspose2dGeometry.of((1, 2, 3, 3), (2, 2, 2, 2), stride=2),
        Conv3dGeometry(1, 2, 3, 3, 3, 2, 2),
    ],
)
def test_layers_that_the_format_does_not_know(
    tmp_path: Path, geometry: Geometry, matmul: bool
) -> None:
    with pytest.raises(ValueError, match="'x': a topology file has no such layer"):
        write_topology([("x", geometry)], tmp_path / "net.csv", matmul)
