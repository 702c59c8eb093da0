"""SCALE-Sim topology files: read, written, and every kind of bad line named."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.accelerators import Systolic
from elision.products import (
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)
from elision.workloads.shapes import open_symbols, read_topology, write_topology

HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
    "Num Filter, Strides,\n"
)
LINES = """\
Conv1, 230, 230, 7, 7, 3, 64, 2,

Rect, 10, 20, 3, 1, 8, 16, 2, 1,
FC, 1, 1, 1, 1, 512, 1000, 1
"""


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "net.csv"
    path.write_bytes(text.encode(encoding))
    return path


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
    assert read[2][1].shape_of("input")[2:] == (55, 56)
    assert read[0][1].shape_of("input")[2:] == (229, 229)


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
        ('a"b', {}, "no comma, quote"),
        ("a\r", {}, "no comma, quote or line end"),
        ("#1", {}, "begin with #"),
        ("", {}, "not be empty"),
        (" a", {}, "begin with # or a space"),
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


CONV = Conv2dGeometry(1, 3, 9, 8, 16, (2, 3))
LINE = "c, 9, 8, 2, 3, 3, 16, 1,\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Columns in another order, and under the other titles that files give them.
        (
            "Layer,Strides,Num Filters,Channel,Filter Width,Filter Height,IFMAP Width,"
            "IFMAP Height\nc,1,16,3,3,2,8,9\n",
            CONV,
        ),
        (
            "Layer, IFMAP Width, IFMAP Width, Filter Height, Filter Width, Channels, "
            "Num Filter, Strides,\n" + LINE,
            CONV,
        ),
        # A batch, and both strides.
        (HEADER.strip() + "Batch Size,\nc,9,8,2,3,3,16,1,4,\n", CONV.with_batch(4)),
        (HEADER.strip() + "Batch Size,\n" + LINE, CONV),
        (
            "Layer name,IFMAP height,IFMAP width,Filter height,Filter width,Channels,"
            "Num filter,Stride height,Stride width,\nc,9,9,3,3,3,16,2,3,\n",
            Conv2dGeometry(1, 3, 9, 9, 16, 3, (2, 3)),
        ),
        (
            "layer_name,ifmap_h,ifmap_w,filter_h,filter_w,num_channels,"
            "Number of Filters,Stride H,Stride W\nc,9,9,3,3,3,16,2,3,\n",
            Conv2dGeometry(1, 3, 9, 9, 16, 3, (2, 3)),
        ),
        (
            HEADER.strip() + "Strides,\nc,9,9,3,3,3,16,2,3,\n",
            Conv2dGeometry(1, 3, 9, 9, 16, 3, (2, 3)),
        ),
        # Matrix products by the letters of their header.
        ("Layer Name, M, N, K,\ng, 2, 3, 5,\n", MatmulGeometry(2, 5, 3)),
        ("L,M,K,N\ng,2,5,3\n", MatmulGeometry(2, 5, 3)),
        ("K,N,M,Layer\n5,3,2,g\n", MatmulGeometry(2, 5, 3)),
        ("Layer,M,N,K,Batch,\ng,2,3,5,4,\n", MatmulGeometry(8, 5, 3)),
        # No header: SCALE-Sim's order.
        (LINE, CONV),
        ("g,2,3,5,\n", MatmulGeometry(2, 5, 3)),
        # Separators, line ends, comments.
        (HEADER.replace(",", "\t") + LINE.replace(",", "\t"), CONV),
        (HEADER.replace(",", ";") + LINE.replace(",", ";"), CONV),
        ((HEADER + LINE).replace("\n", "\r\n"), CONV),
        ((HEADER + LINE).replace("\n", "\r"), CONV),
        ("# a comment\n" + HEADER + "#\n" + LINE.strip() + "#dw\n,,,\n", CONV),
        # Filters as wide as an image of one channel: a matrix product.
        (HEADER + "g, 4, 7, 1, 7, 1, 5, 1,\n", MatmulGeometry(4, 7, 5)),
    ],
)
def test_columns_by_their_header(tmp_path: Path, text: str, expected: Geometry) -> None:
    ((_, geometry),) = read_topology(write(tmp_path, text))
    assert geometry == expected


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-16-le", "utf-16-be"]
)
def test_texts_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    text = mark + HEADER + LINE.replace("c,", "tête,")
    assert read_topology(write(tmp_path, text, encoding)) == [("tête", CONV)]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_a_text_without_its_mark_is_named(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, HEADER + LINE, encoding)
    with pytest.raises(ValueError, match=r"net.csv: not a text in UTF-8; .* mark"):
        read_topology(path)


def test_sections_and_further_headers(tmp_path: Path) -> None:
    text = f"One net,\n{HEADER}\n{LINE}Other,,,\n{LINE}{HEADER}{LINE}L,M,N,K\ng,2,3,5\n"
    assert read_topology(write(tmp_path, text)) == [
        ("One net/c", CONV),
        ("Other/c", CONV),
        ("Other/c", CONV),
        ("Other/g", MatmulGeometry(2, 5, 3)),
    ]


@pytest.mark.parametrize("name", ["Conv2_DP", "DP7", "dw DP"])
def test_a_depthwise_layer_is_marked_in_its_name(tmp_path: Path, name: str) -> None:
    text = HEADER + f"{name}, 9, 9, 3, 3, 8, 2, 1,\n"
    ((_, geometry),) = read_topology(write(tmp_path, text))
    assert geometry == Conv2dGeometry(1, 8, 9, 9, 16, 3, groups=8)
    # SCALE-Sim has a layer of one channel for each.
    assert geometry.dense_macs == 8 * (7 * 7) * (3 * 3) * 2


LSTM = (
    "gate_h, 1, B, 1, 1, H, H, 1,\ngate_x, 1, B, 1, 1, D, H, 1,\nall,B,B,B,B,D,H,B,\n"
)


def test_a_template_is_filled_in(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + LSTM)
    assert open_symbols(path) == ["B", "H", "D"]
    assert read_topology(path, {"B": 4, "H": 6, "D": 5}) == [
        ("gate_h", Conv2dGeometry(1, 6, 1, 4, 6, 1)),
        ("gate_x", Conv2dGeometry(1, 5, 1, 4, 6, 1)),
        ("all", Conv2dGeometry(1, 5, 4, 4, 6, 4, 4)),
    ]


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({}, "line 2: IFMAP Width .* got 'B'; .* --dim B=SIZE H=SIZE D=SIZE"),
        ({"B": 1, "H": 2}, "line 3: Channels .* got 'D'; .* --dim D=SIZE"),
        ({"B": 1, "H": 2, "D": 3, "Q": 4}, "no cell holds the symbol 'Q'"),
        ({"B": 0, "H": 2, "D": 3}, r"dims\['B'\]=0\): must be an integer >= 1"),
    ],
)
def test_sizes_of_a_template_that_are_wrong(
    tmp_path: Path, dims: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_topology(write(tmp_path, HEADER + LSTM), dims)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "a header, but no layers"),
        ("Layer,M,N,K\n", "a header, but no layers"),
        ("AlexNet,\n", "no header and no layers"),
        ("c 9 8 2 3 3 16 1\n", "line 1: one cell, 'c 9 8.* separated by commas"),
        ("Layer,M,N\ng,2,3\n", "line 1: expected the columns .* got Layer, M, N"),
        (HEADER + "c, 9, 8, 2, , 3, 16, 1,\n", "line 2: Filter Width .* got ''"),
        (HEADER + "c, 9, 8.0, 2, 3, 3, 16, 1,\n", "line 2: IFMAP Width .* got '8.0'"),
        (HEADER + "c, 9, 8, 2, 3, 3, 1 6, 1,\n", "line 2: Num Filter .* got '1 6'"),
        (HEADER + "c, 1, 8, 2, 3, 3, 16, 1,\n", "line 2: .* does not fit the input"),
        (HEADER + "c, 9, 8, 2, 3, 3, 16, 1, 1, 2,\n", "line 2: expected 8 columns"),
        ("Layer,M,N,K\ng,2,3,5,7,\n", "line 2: expected 4 columns .* got 5"),
        ("Layer,M,N,K,Sparsity\ng,2,3,5,4:2,\n", "line 2: Sparsity must be N:M"),
        ("Layer,M,N,K,Sparsity\ng,2,3,5,half,\n", "line 2: Sparsity must be N:M"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_why(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=f"net.csv.*{message}"):
        read_topology(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER.strip()
            + "Sparsity,\n"
            + LINE.strip()
            + "2:4,\nd,9,8,2,3,3,16,1,4:4,\n",
            r"the Sparsity of 1 layer\(s\) is not read",
        ),
        (HEADER + LINE.strip() + "2:4,\n", r"the Sparsity of 1 layer\(s\) is not read"),
        (
            "Layer,M,N,K,Sparsity,\ng,3,5,16,3:4,\nh,1,5,16,1:4,\n",
            r"the Sparsity of 2 layer\(s\) is not read",
        ),
        (HEADER + LINE + "Total,,,\n", "no layers under 'Total'"),
        ("Nets\nOne\n" + HEADER + LINE, "no layers under 'Nets'"),
        (HEADER.strip() + ",,Eh,Ew\n" + LINE.strip() + ",,7,6\n", "not read: Eh, Ew"),
    ],
)
def test_what_is_not_read_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.warns(UserWarning, match=message) as said:
        assert read_topology(write(tmp_path, text))
    assert len(said) == 1


def test_a_sparsity_of_one_is_dense(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_topology(write(tmp_path, "Layer,M,N,K,Sparsity\ng,2,3,4,4:4,\n"))
    assert read == read_topology(write(tmp_path, "Layer,M,N,K\ng,2,3,4,\n"))


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kernel=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    stride=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    batch=st.integers(1, 3),
)
def test_outputs_are_torchs_and_those_of_scalesim_where_asked(
    tmp_path_factory: pytest.TempPathFactory,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    batch: int,
) -> None:
    kernel = [min(pair) for pair in zip(size, kernel, strict=True)]
    cells = (*size, *kernel, 3, 5, *stride, batch)
    text = HEADER.strip() + "Strides,Batch\nc," + ",".join(map(str, cells))
    ((_, geometry),) = read_topology(write(tmp_path_factory.mktemp("t"), text))
    axes = [*zip(size, kernel, stride, strict=True)]
    each = batch * math.prod((*kernel, 3, 5))
    floor = math.prod((n - taps) // step + 1 for n, taps, step in axes)
    ceil = math.prod(math.ceil((n - taps + step) / step) for n, taps, step in axes)
    assert geometry.dense_macs == each * floor
    array = Systolic(counting="scalesim")
    cost = array.cost(LayerProduct(Product.FORWARD, geometry))
    assert cost.multiplies == each * ceil


ROUND = {
    "convolution": Conv2dGeometry(1, 3, 9, 9, 16, (3, 2), (2, 1)),
    "padded": Conv2dGeometry(1, 3, 8, 8, 16, 3, 2, 1),
    "depthwise": Conv2dGeometry(1, 8, 9, 9, 8, 3, padding=1, groups=8),
    "depthwise twice": Conv2dGeometry(1, 8, 9, 9, 16, 3, groups=8),
    "linear": MatmulGeometry(4, 512, 10),
    "one row": MatmulGeometry(1, 7, 1),
    "one column": MatmulGeometry(7, 1, 3),
}


@pytest.mark.parametrize("kind", ROUND)
def test_products_are_the_same_when_read_again(tmp_path: Path, kind: str) -> None:
    """Unpadded layers and linear ones come back as they were, padded ones as products."""
    geometry = ROUND[kind]
    path = write_topology([(kind, geometry)], tmp_path / "net.csv")
    ((name, back),) = read_topology(path)
    assert name.removesuffix(" DP") == kind
    assert back.dense_macs == geometry.dense_macs
    assert back.shape_of("grad_output") == geometry.shape_of("grad_output")
    assert back.shape_of("weight") == geometry.shape_of("weight")
    if kind not in ("padded", "depthwise"):
        assert back == geometry


def test_a_name_that_scalesim_would_take_for_depthwise(tmp_path: Path) -> None:
    layers = [("ADPool", MatmulGeometry(1, 2, 3))]
    with pytest.raises(ValueError, match=r"'ADPool': SCALE-Sim reads .* depthwise"):
        write_topology(layers, tmp_path / "net.csv")
    assert write_topology(layers, tmp_path / "net.csv", matmul=True).is_file()


def test_a_title_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text('Layer name, "IFMAP\nHeight",\nconv, 10,\n')
    with pytest.raises(ValueError, match="expected the columns") as told:
        read_topology(path)
    assert str(told.value).isprintable()
