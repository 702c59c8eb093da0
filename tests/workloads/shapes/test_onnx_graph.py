"""ONNX graphs as a source of layer shapes: built here node by node, and published ones."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from elision.products import (
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    Geometry,
    MatmulGeometry,
)
from elision.workloads.shapes import read_onnx

onnx = pytest.importorskip("onnx")

Shape = Sequence[int | str | None]
FLOAT = 1  # onnx.TensorProto.FLOAT


def node(kind: str, inputs: str, outputs: str, name: str = "", **how: Any) -> Any:
    """A node whose inputs and outputs are words; "-" is an input left out."""
    entries = ["" if word == "-" else word for word in inputs.split()]
    return onnx.helper.make_node(kind, entries, outputs.split(), name, **how)


def weight(name: str, shape: Sequence[int], kind: int = FLOAT) -> Any:
    size = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    for length in shape:
        size *= length
    return onnx.helper.make_tensor(name, kind, shape, bytes(size), raw=True)


def integers(name: str, values: Sequence[int]) -> Any:
    return onnx.helper.make_tensor(name, 7, [len(values)], values)


def graph(
    path: Path,
    nodes: Sequence[Any],
    stored: Sequence[Any] = (),
    inputs: Mapping[str, Shape] | None = None,
    kind: int = FLOAT,
    functions: Sequence[Any] = (),
    version: int = 18,
) -> Path:
    """Write a graph with the inputs given, by default one image ``x``, and output y."""
    helper = onnx.helper
    given = {"x": [1, 3, 8, 8]} if inputs is None else inputs
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in _typed(given, kind)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        list(stored),
    )
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("own", 1)]
    model = helper.make_model(made, opset_imports=opsets, functions=list(functions))
    onnx.save(model, str(path))
    return path


def _typed(
    inputs: Mapping[str, Shape], kind: int
) -> list[tuple[str, int, Sequence[int | str | None]]]:
    return [(name, kind, list(shape)) for name, shape in inputs.items()]


def only(layers: Sequence[tuple[str, Geometry]]) -> Geometry:
    ((_, geometry),) = layers
    return geometry


def test_a_small_network(tmp_path: Path) -> None:
    path = graph(
        tmp_path / "net.onnx",
        [
            node("Conv", "x w1", "a", "conv", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", "a", "b"),
            node("Conv", "b w2", "c", "depthwise", group=8, dilations=[2, 2]),
            node("Conv", "c w5", "d", "same", auto_pad="SAME_UPPER"),
            node("Flatten", "d", "e"),
            node("Gemm", "e w3", "f", "fc", transB=1),
            node("MatMul", "f w4", "y"),
        ],
        [
            weight("w1", (8, 3, 3, 3)),
            weight("w2", (8, 1, 3, 3)),
            weight("w3", (10, 8 * 4 * 4)),
            weight("w4", (10, 5)),
            weight("w5", (8, 8, 3, 3)),
        ],
        {"x": ["batch", 3, 16, 16]},
    )
    assert read_onnx(path, {"batch": 2}) == [
        ("conv", Conv2dGeometry(2, 3, 16, 16, 8, 3, 2, 1)),
        ("depthwise", Conv2dGeometry(2, 8, 8, 8, 8, 3, dilation=2, groups=8)),
        ("same", Conv2dGeometry(2, 8, 4, 4, 8, 3, padding=1)),
        ("fc", MatmulGeometry(2, 128, 10)),
        ("MatMul_6", MatmulGeometry(2, 10, 5)),
    ]


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize(
    ("name", "layers", "macs"),
    [  # whose weights are ConstantOfShape; the figures are those of the papers' networks
        ("resnet50", 54, 4_089_184_256),
        ("bvlc_alexnet", 8, 654_560_384),
        ("squeezenet", 26, 349_151_936),
        ("vgg19", 19, 19_632_062_464),
        ("densenet121", 121, 2_834_161_664),
        ("shufflenet", 50, 124_664_528),
    ],
)
def test_published_graphs(name: str, layers: int, macs: int) -> None:
    path = LIGHT / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip("this version of onnx brings no light models")
    found = read_onnx(path)
    assert len(found) == layers
    assert sum(geometry.dense_macs for _, geometry in found) == macs


CONSTANT = onnx.helper.make_tensor("value", FLOAT, (6, 4), bytes(96), raw=True)

WEIGHTS = {
    "constant": [node("Constant", "", "w", value=CONSTANT)],
    "constant of shape": [node("ConstantOfShape", "sizes", "w")],
    "identity": [node("Identity", "stored", "w")],
    "transposed": [node("Transpose", "turned", "w")],
    "cast": [
        node("Cast", "stored", "half", to=10),
        node("Cast", "half", "w", to=FLOAT),
    ],
    "reshaped": [node("Reshape", "flat sizes", "w")],
    "dequantised": [node("DequantizeLinear", "bytes scale", "w")],
    "computed": [node("Mul", "stored scale", "w")],
}


@pytest.mark.parametrize("how", WEIGHTS)
@pytest.mark.parametrize("left", [False, True])
def test_weights_behind_constants(tmp_path: Path, how: str, left: bool) -> None:
    """A weight is what hangs on constants alone, on either side of a product."""
    stored = [
        weight("stored", (6, 4)),
        weight("turned", (4, 6)),
        weight("flat", (24,)),
        weight("bytes", (6, 4), 3),
        onnx.helper.make_tensor("scale", FLOAT, [], [1.0]),
        integers("sizes", [6, 4]),
    ]
    product = node("MatMul", "w x" if left else "x w", "y")
    entry = [2, 4, 5] if left else [2, 5, 6]
    path = graph(tmp_path / "w.onnx", [*WEIGHTS[how], product], stored, {"x": entry})
    expected = MatmulGeometry(10, 4, 6) if left else MatmulGeometry(10, 6, 4)
    assert only(read_onnx(path)) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((2, 3, 7, 4), (2, 3, 4, 5), MatmulGeometry(7, 4, 5, batch=6)),
        ((2, 3, 7, 4), (2, 1, 4, 5), MatmulGeometry(21, 4, 5, batch=2)),
        ((3, 7, 4), (2, 1, 4, 5), MatmulGeometry(21, 4, 10)),
        ((7, 4), (3, 4, 5), MatmulGeometry(7, 4, 15)),
        ((4,), (4, 5), MatmulGeometry(1, 4, 5)),
        ((3, 7, 4), (4,), MatmulGeometry(21, 4, 1)),
    ],
)
def test_products_of_two_computed_tensors(
    tmp_path: Path, a: Shape, b: Shape, expected: Geometry
) -> None:
    path = graph(
        tmp_path / "a.onnx", [node("MatMul", "a b", "y")], inputs={"a": a, "b": b}
    )
    assert only(read_onnx(path)) == expected


@pytest.mark.parametrize(
    ("equation", "a", "b", "expected"),
    [
        ("bhid,bhjd->bhij", (2, 3, 7, 4), (2, 3, 5, 4), MatmulGeometry(7, 4, 5, 6)),
        ("nchw,kc->nkhw", (2, 4, 3, 3), (6, 4), MatmulGeometry(18, 4, 6)),
        ("...i,ij->...j", (2, 3, 4), (4, 5), MatmulGeometry(6, 4, 5)),
        ("ij,jk", (3, 4), (4, 5), MatmulGeometry(3, 4, 5)),
        ("i,j->ij", (3,), (5,), MatmulGeometry(3, 1, 5)),
    ],
)
def test_einsum(
    tmp_path: Path, equation: str, a: Shape, b: Shape, expected: Geometry
) -> None:
    made = node("Einsum", "a b", "y", equation=equation)
    path = graph(tmp_path / "e.onnx", [made], inputs={"a": a, "b": b})
    assert only(read_onnx(path)) == expected


@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm(tmp_path: Path, turned: tuple[int, int]) -> None:
    made = node("Gemm", "x w", "y", transA=turned[0], transB=turned[1], alpha=0.5)
    stored = [weight("w", (6, 4) if turned[1] else (4, 6))]
    entry = {"x": (4, 5) if turned[0] else (5, 4)}
    path = graph(tmp_path / "g.onnx", [made], stored, entry)
    assert only(read_onnx(path)) == MatmulGeometry(5, 4, 6)


@pytest.mark.parametrize(
    ("entry", "taps", "how", "expected"),
    [
        ((1, 3, 8), (4, 3, 2), {}, Conv2dGeometry(1, 3, 1, 8, 4, (1, 2))),
        (
            (1, 3, 8),
            (6, 1, 3),
            {"pads": [2, 2], "group": 3, "dilations": [2], "strides": [3]},
            Conv2dGeometry(1, 3, 1, 8, 6, (1, 3), (1, 3), (0, 2), (1, 2), 3),
        ),
        ((1, 2, 5, 6, 7), (4, 2, 2, 2, 2), {}, Conv3dGeometry(1, 2, 5, 6, 7, 4, 2)),
        # Padding that differs between two sides: the padded image.
        ((1, 3, 8, 8), (4, 3, 2, 2), {"pads": [0, 0, 1, 1]}, (9, 9, 2, 1)),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"auto_pad": "SAME_UPPER"}, (8, 8, 3, 1, 1)),
        ((1, 3, 8, 8), (4, 3, 2, 2), {"auto_pad": "SAME_LOWER"}, (9, 9, 2, 1)),
        (
            (1, 3, 8, 8),
            (4, 3, 3, 3),
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            (9, 9, 3, 2),
        ),
        (
            (1, 3, 8, 8),
            (4, 3, 3, 3),
            {"auto_pad": "VALID", "pads": [0] * 4},
            (8, 8, 3, 1),
        ),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"pads": [-1, 0, 0, 0]}, (7, 8, 3, 1)),
    ],
)
def test_convolutions(
    tmp_path: Path,
    entry: Shape,
    taps: Sequence[int],
    how: dict[str, Any],
    expected: Geometry | tuple[int, ...],
) -> None:
    made = node("Conv", "x w", "y", **how)
    path = graph(tmp_path / "c.onnx", [made], [weight("w", taps)], {"x": entry})
    if isinstance(expected, tuple):
        height, width, *rest = expected
        expected = Conv2dGeometry(1, 3, height, width, 4, *rest)
    assert only(read_onnx(path)) == expected


@pytest.mark.parametrize("padding", ["same", 0, 2, (1, 0)])
@pytest.mark.parametrize("kernel", [1, 2, (3, 4)])
def test_an_exported_convolution_is_that_of_the_model(
    tmp_path: Path, padding: Any, kernel: Any
) -> None:
    layer = nn.Conv2d(4, 6, kernel, padding=padding)
    exported = _exported(tmp_path, layer, torch.zeros(2, 4, 9, 10))
    out = layer(torch.zeros(2, 4, 9, 10))
    assert exported.dense_macs == out.numel() * layer.weight[0].numel()


def _exported(folder: Path, layer: nn.Module, x: torch.Tensor) -> Geometry:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that needs no other package
        torch.onnx.export(layer, (x,), str(folder / "e.onnx"), dynamo=False)
    return only(read_onnx(folder / "e.onnx"))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, {}),
        (
            {"strides": [2, 3], "pads": [1, 0, 1, 0]},
            {"stride": (2, 3), "padding": (1, 0)},
        ),
        (
            {"strides": [2, 2], "output_padding": [1, 0]},
            {"stride": 2, "output_padding": (1, 0)},
        ),
        # An even cut is the layer's padding; one that is uneven leaves the whole output.
        ({"strides": [2, 2], "output_shape": [9, 9]}, {"stride": 2, "padding": 1}),
        ({"strides": [2, 2], "auto_pad": "SAME_UPPER"}, {"stride": 2}),
        ({"strides": [2, 2], "auto_pad": "VALID"}, {"stride": 2}),
        ({"strides": [2, 2], "pads": [0, 0, 1, 1]}, {"stride": 2}),
        ({"strides": [2, 2], "output_shape": [13, 13]}, {"stride": 2}),
    ],
)
def test_transposed_convolutions(
    tmp_path: Path, how: dict[str, Any], expected: dict[str, Any]
) -> None:
    made = node("ConvTranspose", "x w", "y", **how)
    stored = [weight("w", (4, 6, 3, 3))]
    path = graph(tmp_path / "t.onnx", [made], stored, {"x": (1, 4, 5, 5)})
    entry, taps = (1, 4, 5, 5), (4, 6, 3, 3)
    assert only(read_onnx(path)) == ConvTranspose2dGeometry.of(entry, taps, **expected)


def test_a_transposed_line(tmp_path: Path) -> None:
    made = node("ConvTranspose", "x w", "y", strides=[2], group=2)
    stored = [weight("w", (4, 3, 3))]
    path = graph(tmp_path / "t.onnx", [made], stored, {"x": (1, 4, 5)})
    assert only(read_onnx(path)) == ConvTranspose2dGeometry.of(
        (1, 4, 1, 5), (4, 3, 1, 3), stride=(1, 2), groups=2
    )


UINT8 = 2
QUANTISED = [
    ("ConvInteger", "x c", Conv2dGeometry(1, 3, 8, 8, 4, 3)),
    ("QLinearConv", "x s z c s z s z", Conv2dGeometry(1, 3, 8, 8, 4, 3)),
    ("MatMulInteger", "x m", MatmulGeometry(24, 8, 5)),
    ("QLinearMatMul", "x s z m s z s z", MatmulGeometry(24, 8, 5)),
    ("QLinearMatMul", "l s z x s z s z", MatmulGeometry(8, 8, 5, batch=3)),
]


@pytest.mark.parametrize(("kind", "inputs", "expected"), QUANTISED)
def test_integer_and_quantised_products(
    tmp_path: Path, kind: str, inputs: str, expected: Geometry
) -> None:
    stored = [
        weight("c", (4, 3, 3, 3), UINT8),
        weight("m", (8, 5), UINT8),
        weight("l", (1, 3, 5, 8), UINT8),
        onnx.helper.make_tensor("s", FLOAT, [], [1.0]),
        onnx.helper.make_tensor("z", UINT8, [], [0]),
    ]
    path = graph(tmp_path / "q.onnx", [node(kind, inputs, "y")], stored, kind=UINT8)
    assert only(read_onnx(path)) == expected


@pytest.mark.parametrize(
    ("kind", "gates", "widths"),
    [("LSTM", 4, [4]), ("GRU", 3, [2, 1]), ("RNN", 1, [1])],
)
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers(
    tmp_path: Path, kind: str, gates: int, widths: list[int], directions: int
) -> None:
    """The inputs of all steps in one product, the states of each step by themselves."""
    direction = "bidirectional" if directions == 2 else "forward"
    made = node(kind, "x w r", "y", "r", hidden_size=8, direction=direction)
    stored = [
        weight("w", (directions, gates * 8, 3)),
        weight("r", (directions, gates * 8, 8)),
    ]
    path = graph(tmp_path / "r.onnx", [made], stored, {"x": (5, 2, 3)})
    layers = read_onnx(path)
    assert layers[0][1] == MatmulGeometry(5 * 2, 3, gates * 8)
    steps = [MatmulGeometry(2, 8, width * 8) for width in widths] * 5
    assert [geometry for _, geometry in layers[1 : len(steps) + 1]] == steps
    assert len(layers) == directions * (1 + len(steps))
    macs = sum(geometry.dense_macs for _, geometry in layers)
    assert macs == directions * 5 * 2 * gates * 8 * (3 + 8)


def test_a_gru_that_resets_late_has_one_product_a_step(tmp_path: Path) -> None:
    made = node("GRU", "x w r", "y", hidden_size=8, linear_before_reset=1, layout=1)
    stored = [weight("w", (1, 24, 3)), weight("r", (1, 24, 8))]
    path = graph(tmp_path / "r.onnx", [made], stored, {"x": (2, 5, 3)})
    found = [geometry for _, geometry in read_onnx(path)]
    assert found == [MatmulGeometry(10, 3, 24), *[MatmulGeometry(2, 8, 24)] * 5]


def test_attention_shares_keys_among_heads(tmp_path: Path) -> None:
    made = node("Attention", "q k v", "y", "a", q_num_heads=6, kv_num_heads=2)
    inputs = {"q": (1, 5, 24), "k": (1, 7, 8), "v": (1, 7, 6)}
    path = graph(tmp_path / "a.onnx", [made], inputs=inputs, version=23)
    assert read_onnx(path) == [
        ("a.scores", MatmulGeometry(15, 4, 7, batch=2)),
        ("a.context", MatmulGeometry(15, 7, 3, batch=2)),
    ]


def body(
    nodes: Sequence[Any], inputs: Sequence[Any] = (), outputs: Sequence[Any] = ()
) -> Any:
    outs = outputs or [onnx.helper.make_tensor_value_info("y", FLOAT, None)]
    return onnx.helper.make_graph(nodes, "body", list(inputs), list(outs))


def value(name: str, kind: int, shape: Shape | None) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


BOOL = 9


@pytest.mark.parametrize("truth", [True, False])
def test_the_branch_that_is_taken(tmp_path: Path, truth: bool) -> None:
    branches = {
        "then_branch": body([node("MatMul", "x wide", "y", "a")]),
        "else_branch": body([node("MatMul", "x narrow", "y", "b")]),
    }
    stored = [
        weight("wide", (8, 20)),
        weight("narrow", (8, 2)),
        onnx.helper.make_tensor("truth", BOOL, [], [truth]),
    ]
    path = graph(
        tmp_path / "i.onnx", [node("If", "truth", "y", "i", **branches)], stored
    )
    assert read_onnx(path) == [
        ("i.a", MatmulGeometry(24, 8, 20))
        if truth
        else ("i.b", MatmulGeometry(24, 8, 2))
    ]


@pytest.mark.parametrize(
    ("other", "names", "said"),
    [
        ((8, 2), ["i.then.a", "i.else.b"], "both branches of If 'i' are listed"),
        ((8, 20), ["i.then.a"], None),  # equal products, whichever is taken
        ((5, 2), ["i.then.a"], "'else' of If 'i' is left out: .* do not fit together"),
        (None, ["i.then.a"], "one branch of If 'i' has products; .* may not run"),
    ],
)
def test_a_branch_that_is_open(
    tmp_path: Path, other: Sequence[int] | None, names: list[str], said: str | None
) -> None:
    made = node("Relu", "x", "y") if other is None else node("MatMul", "x o", "y", "b")
    branches = {
        "then_branch": body([node("MatMul", "x wide", "y", "a")]),
        "else_branch": body([made]),
    }
    stored = [weight("wide", (8, 20)), weight("o", other or ())]
    path = graph(
        tmp_path / "i.onnx", [node("If", "flag", "y", "i", **branches)], stored
    )
    model = onnx.load(str(path))
    model.graph.input.append(value("flag", BOOL, []))
    onnx.save(model, str(path))
    if said is None:
        layers = read_onnx(path)
    else:
        with pytest.warns(UserWarning, match=said):
            layers = read_onnx(path)
    assert [name for name, _ in layers] == names


@pytest.mark.parametrize("known", [True, False])
def test_a_loop_repeats_its_body(tmp_path: Path, known: bool) -> None:
    inner = body(
        [
            node("Identity", "go", "on"),
            node("MatMul", "state w", "next", "m"),
        ],
        [value("i", 7, []), value("go", BOOL, []), value("state", FLOAT, None)],
        [value("on", BOOL, []), value("next", FLOAT, None)],
    )
    stored = [weight("w", (8, 8))]
    if known:
        stored.append(onnx.helper.make_tensor("times", 7, [], [3]))
    path = graph(
        tmp_path / "l.onnx",
        [node("Loop", "times - x" if known else "- - x", "y", "l", body=inner)],
        stored,
    )
    if known:
        assert read_onnx(path) == [("l.m", MatmulGeometry(24, 8, 8))] * 3
        return
    with pytest.warns(UserWarning, match="how often 'l' repeats its body is not known"):
        assert read_onnx(path) == [("l.m", MatmulGeometry(24, 8, 8))]


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("going", ["kept", "constant", "anew"])
def test_a_loop_with_a_condition(tmp_path: Path, start: bool, going: str) -> None:
    """A condition that follows from having begun leaves the count of runs to decide."""
    conditions = {
        "kept": node("Identity", "go", "on"),
        "constant": node(
            "Constant", "", "on", value=onnx.helper.make_tensor("t", BOOL, [], [True])
        ),
        "anew": node("Cast", "i", "on", to=BOOL),
    }
    inner = body(
        [conditions[going], node("MatMul", "state w", "next", "m")],
        [value("i", 7, []), value("go", BOOL, []), value("state", FLOAT, None)],
        [value("on", BOOL, []), value("next", FLOAT, None)],
    )
    stored = [
        weight("w", (8, 8)),
        onnx.helper.make_tensor("times", 7, [], [3]),
        onnx.helper.make_tensor("start", BOOL, [], [start]),
    ]
    loop = node("Loop", "times start x", "y", "l", body=inner)
    path = graph(tmp_path / "l.onnx", [loop], stored)
    if start and going != "anew":
        assert len(read_onnx(path)) == 3
        return
    with pytest.warns(UserWarning, match="how often 'l' repeats its body"):
        assert len(read_onnx(path)) == 1


@pytest.mark.parametrize(("axis", "gathered"), [(0, (5, 2, 6)), (-1, (2, 6, 5))])
def test_what_a_scan_gathers_has_an_axis_more(
    tmp_path: Path, axis: int, gathered: tuple[int, ...]
) -> None:
    inner = body(
        [node("MatMul", "part w", "made", "m"), node("Identity", "state", "next")],
        [value("state", FLOAT, None), value("part", FLOAT, None)],
        [value("next", FLOAT, None), value("made", FLOAT, None)],
    )
    how = {"num_scan_inputs": 1, "scan_output_axes": [axis], "scan_input_axes": [1]}
    nodes = [
        node("Scan", "s x", "z all", "s", body=inner, **how),
        node("MatMul", "all v", "y", "after"),
    ]
    stored = [weight("w", (4, 6)), weight("v", (gathered[-1], 7))]
    path = graph(tmp_path / "s.onnx", nodes, stored, {"s": (2,), "x": (2, 5, 4)})
    layers = read_onnx(path)
    assert len(layers) == 6
    rows = gathered[0] * gathered[1]
    assert layers[-1] == ("after", MatmulGeometry(rows, gathered[2], 7))


def test_an_empty_cache_of_keys(tmp_path: Path) -> None:
    nodes = [
        node("Concat", "past x", "keys", axis=1),
        node("MatMul", "keys w", "y", "m"),
    ]
    inputs = {"past": (1, "P", 4), "x": (1, 3, 4)}
    path = graph(tmp_path / "k.onnx", nodes, [weight("w", (4, 5))], inputs)
    assert read_onnx(path, {"P": 0}) == [("m", MatmulGeometry(3, 4, 5))]
    assert read_onnx(path, {"P": 2}) == [("m", MatmulGeometry(5, 4, 5))]


def test_a_scan_repeats_its_body_over_an_axis(tmp_path: Path) -> None:
    inner = body(
        [node("MatMul", "part w", "made", "m"), node("Identity", "state", "next")],
        [value("state", FLOAT, None), value("part", FLOAT, None)],
        [value("next", FLOAT, None), value("made", FLOAT, None)],
    )
    made = node("Scan", "s x", "z y", "s", body=inner, num_scan_inputs=1)
    stored = [weight("w", (4, 6))]
    path = graph(tmp_path / "s.onnx", [made], stored, {"s": (2,), "x": (5, 2, 4)})
    assert read_onnx(path) == [("s.m", MatmulGeometry(2, 4, 6))] * 5


def test_what_a_loop_makes_longer_has_no_shape(tmp_path: Path) -> None:
    inner = body(
        [
            node("Identity", "go", "on"),
            node("MatMul", "state w", "made", "m"),
            node("Concat", "state state", "next", axis=0),
        ],
        [value("i", 7, []), value("go", BOOL, []), value("state", FLOAT, None)],
        [value("on", BOOL, []), value("next", FLOAT, None), value("made", FLOAT, None)],
    )
    stored = [weight("w", (4, 6)), onnx.helper.make_tensor("times", 7, [], [3])]
    path = graph(
        tmp_path / "l.onnx",
        [node("Loop", "times - x", "z y", "l", body=inner), node("MatMul", "x w", "q")],
        stored,
        {"x": (2, 4)},
    )
    with pytest.warns(UserWarning, match=r"not read: MatMul of unknown shape \(1\)"):
        assert [name for name, _ in read_onnx(path)] == ["MatMul_1"]


def test_functions_of_the_file_are_read(tmp_path: Path) -> None:
    opsets = [onnx.helper.make_opsetid("", 18)]
    dense = onnx.helper.make_function(
        "own",
        "Dense",
        ["a", "b"],
        ["c"],
        [node("MatMul", "a b", "d"), node("Relu", "d", "c")],
        opsets,
    )
    path = graph(
        tmp_path / "f.onnx",
        [
            onnx.helper.make_node("Dense", ["x", "w"], ["z"], domain="own"),
            onnx.helper.make_node("Dense", ["z", "w"], ["y"], domain="own"),
        ],
        [weight("w", (8, 8))],
        functions=[dense],
    )
    assert [g for _, g in read_onnx(path)] == [MatmulGeometry(24, 8, 8)] * 2


def test_sizes_that_hang_on_shapes(tmp_path: Path) -> None:
    """Reshape by Shape, Gather and Concat, as exporters write a flattening."""
    path = graph(
        tmp_path / "s.onnx",
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape zero", "n", axis=0),
            node("Unsqueeze", "n axes", "row"),
            node("Concat", "row rest", "sizes", axis=0),
            node("Reshape", "x sizes", "flat"),
            node("Gemm", "flat w", "y", "fc"),
        ],
        [
            onnx.helper.make_tensor("zero", 7, [], [0]),
            integers("axes", [0]),
            integers("rest", [-1]),
            weight("w", (48, 5)),
        ],
        {"x": ["N", 3, 4, 4]},
    )
    assert read_onnx(path, {"N": 7}) == [("fc", MatmulGeometry(7, 48, 5))]


OPEN = {"x": ["N", 3, "?", "?"], "z": [None, 4]}
OPEN_NODES = [node("Conv", "x w", "y", "c"), node("MatMul", "z v", "u", "m")]
OPEN_WEIGHTS = [weight("w", (4, 3, 3, 3)), weight("v", (4, 5))]


def test_every_open_dimension_is_asked_for_by_name(tmp_path: Path) -> None:
    path = graph(tmp_path / "o.onnx", OPEN_NODES, OPEN_WEIGHTS, OPEN)
    with pytest.raises(ValueError, match=r"needs a size: N, x\.2, x\.3, z\.0; "):
        read_onnx(path)
    with pytest.raises(ValueError, match=r"needs a size: x\.3, z\.0; "):
        read_onnx(path, {"N": 2, "x.2": 8})
    sizes = {"N": 2, "x.2": 8, "x.3": 6, "z.0": 9}
    assert [g for _, g in read_onnx(path, sizes)] == [
        Conv2dGeometry(2, 3, 8, 6, 4, 3),
        MatmulGeometry(9, 4, 5),
    ]


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"M": 2}, "unknown dimension 'M'; open ones: N, x.0, x.2, x.3, z.0"),
        ({"N": -1}, r"dims\['N'\]=-1\): must be an integer >= 0"),
        ({"N": 2.5}, r"dims\['N'\]=2.5\): must be an integer >= 0"),
        ({"N": True}, r"dims\['N'\]=True\): must be an integer"),
    ],
)
def test_sizes_that_cannot_be(
    tmp_path: Path, dims: dict[str, Any], message: str
) -> None:
    path = graph(tmp_path / "o.onnx", OPEN_NODES, OPEN_WEIGHTS, OPEN)
    with pytest.raises(ValueError, match=message):
        read_onnx(path, dims)


def test_a_graph_without_open_dimensions_takes_no_size(tmp_path: Path) -> None:
    path = graph(tmp_path / "c.onnx", OPEN_NODES[:1], OPEN_WEIGHTS[:1])
    with pytest.raises(ValueError, match="unknown dimension 'N'; open ones: none"):
        read_onnx(path, {"N": 1})


def test_what_is_not_read_is_counted_by_operator(tmp_path: Path) -> None:
    path = graph(
        tmp_path / "u.onnx",
        [
            onnx.helper.make_node("FusedConv", ["x", "w"], ["a"], domain="own"),
            onnx.helper.make_node("FusedConv", ["x", "w"], ["b"], domain="own"),
            node("Conv", "x w", "y"),
            node("Conv", "a w", "c"),
            node("MatMul", "m m", "d"),
            node("Relu", "x", "e"),
        ],
        [weight("w", (4, 3, 3, 3)), weight("m", (4, 4))],
    )
    expected = (
        r"u\.onnx: not read: own:FusedConv \(2\), Conv of unknown shape \(1\), "
        r"MatMul of constants \(1\)$"
    )
    with pytest.warns(UserWarning, match=expected) as caught:
        assert only(read_onnx(path)) == Conv2dGeometry(1, 3, 8, 8, 4, 3)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (node("Relu", "x", "y"), r"its operators are Relu \(1\)"),
        (node("DeformConv", "x w o", "y"), r"not read: DeformConv \(1\)"),
        (node("Einsum", "x x x", "y", equation="abcd,abcd,abcd->a"), "of 3 tensors"),
        (node("MatMul", "w w", "y"), r"MatMul of constants \(1\)"),
    ],
)
def test_a_graph_of_which_nothing_is_read_is_an_error(
    tmp_path: Path, made: Any, message: str
) -> None:
    stored = [weight("w", (4, 3, 3, 3)), weight("o", (1, 18, 6, 6))]
    path = graph(tmp_path / "n.onnx", [made], stored)
    with pytest.raises(ValueError, match=r"n\.onnx: no product was read; .*" + message):
        read_onnx(path)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (node("Conv", "x w", "y", "c"), r"Conv 'c': shapes \(1, 3, 8, 8\) and"),
        (node("MatMul", "x m", "y", "m"), "MatMul 'm': shapes .* do not fit together"),
        (node("Gemm", "m n", "y", "g"), "Gemm 'g': shapes .* do not fit together"),
        (node("Conv", "x big", "y", "b"), "Conv 'b': .*does not fit the input"),
        (node("LSTM", "x l r", "y", "l"), "LSTM 'l': shapes .* do not fit together"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    tmp_path: Path, made: Any, message: str
) -> None:
    stored = [
        weight("w", (4, 5, 3, 3)),
        weight("m", (9, 5)),
        weight("big", (4, 3, 9, 9)),
        weight("l", (1, 16, 3)),
        weight("r", (1, 16, 4)),
    ]
    inputs = {"x": (1, 3, 8, 8), "n": (4, 5)}
    path = graph(tmp_path / "m.onnx", [made], stored, inputs)
    with pytest.raises(ValueError, match=message):
        read_onnx(path)


def test_an_input_without_a_shape_is_named(tmp_path: Path) -> None:
    path = graph(tmp_path / "n.onnx", OPEN_NODES[:1], OPEN_WEIGHTS[:1])
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(path))
    with pytest.raises(ValueError, match=r"Conv of unknown shape \(1\); .*'x' has no"):
        read_onnx(path)


def test_both_names_of_the_own_domain(tmp_path: Path) -> None:
    made = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], domain="ai.onnx")
    path = graph(tmp_path / "d.onnx", [made], [weight("w", (8, 5))])
    assert only(read_onnx(path)) == MatmulGeometry(24, 8, 5)


def test_weights_in_other_files_are_not_needed(tmp_path: Path) -> None:
    path = graph(tmp_path / "c.onnx", OPEN_NODES[:1], OPEN_WEIGHTS[:1])
    model = onnx.load(str(path))
    onnx.save(
        model, str(path), save_as_external_data=True, location="w", size_threshold=0
    )
    (tmp_path / "w").unlink()
    assert only(read_onnx(path)) == Conv2dGeometry(1, 3, 8, 8, 4, 3)


@pytest.mark.parametrize(
    "made",
    [
        node("MatMul", "x", "y"),
        node("Einsum", "x x", "y"),
        node("If", "x", "y"),
        node("Loop", "", "y"),
        node("Scan", "x", "y"),
        node("LSTM", "x", "y"),
    ],
)
def test_a_node_that_lacks_what_it_needs(tmp_path: Path, made: Any) -> None:
    path = graph(tmp_path / "n.onnx", [made])
    with pytest.raises(ValueError, match=r"n\.onnx: (a damaged|no product)"):
        read_onnx(path)


@pytest.mark.parametrize("content", [b"layer, 1, 2", b""])
def test_not_a_graph(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"text.onnx: not an ONNX graph"):
        read_onnx(path)
