"""ONNX graphs, built here node by node, as a source of layer shapes."""

import pytest

from elision.products import Conv2dGeometry, MatmulGeometry
from elision.workloads.shapes import read_onnx

onnx = pytest.importorskip("onnx")


def graph(path, nodes, weights, entry):
    """Write a graph with one input ``x`` and one output ``y``."""
    helper = onnx.helper
    kind = onnx.TensorProto.FLOAT
    initializers = [
        helper.make_tensor(name, kind, shape, bytes(4 * _size(shape)), raw=True)
        for name, shape in weights.items()
    ]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, entry)],
        [helper.make_tensor_value_info("y", kind, None)],
        initializers,
    )
    onnx.save(helper.make_model(made), str(path))
    return path


def _size(shape):
    size = 1
    for n in shape:
        size *= n
    return size


def test_a_small_network(tmp_path):
    node = onnx.helper.make_node
    path = graph(
        tmp_path / "net.onnx",
        [
            node("Conv", ["x", "w1"], ["a"], "conv", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "w2"], ["c"], "depthwise", group=8, dilations=[2, 2]),
            node("Conv", ["c", "w5"], ["d"], "same", auto_pad="SAME_UPPER"),
            node("Flatten", ["d"], ["e"]),
            node("Gemm", ["e", "w3"], ["f"], "fc", transB=1),
            node("MatMul", ["f", "w4"], ["y"]),
        ],
        {
            "w1": (8, 3, 3, 3),
            "w2": (8, 1, 3, 3),
            "w3": (10, 8 * 4 * 4),
            "w4": (10, 5),
            "w5": (8, 8, 3, 3),
        },
        ["batch", 3, 16, 16],
    )
    assert read_onnx(path, batch=2) == [
        ("conv", Conv2dGeometry(2, 3, 16, 16, 8, 3, 2, 1)),
        ("depthwise", Conv2dGeometry(2, 8, 8, 8, 8, 3, dilation=2, groups=8)),
        ("same", Conv2dGeometry(2, 8, 4, 4, 8, 3, padding=1)),
        ("fc", MatmulGeometry(2, 128, 10)),
        ("MatMul_6", MatmulGeometry(2, 10, 5)),
    ]


def test_products_of_computed_tensors_have_no_weight(tmp_path):
    path = graph(
        tmp_path / "attention.onnx",
        [onnx.helper.make_node("MatMul", ["x", "x"], ["y"])],
        {},
        [4, 4],
    )
    assert read_onnx(path) == []


def test_uneven_padding_is_named(tmp_path):
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "odd", pads=[0, 0, 1, 1])
    path = graph(tmp_path / "odd.onnx", [node], {"w": (4, 3, 2, 2)}, [1, 3, 8, 8])
    with pytest.raises(ValueError, match=r"Conv 'odd': padding must be equal"):
        read_onnx(path)


def test_one_dimensional_convolution_is_named(tmp_path):
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "line")
    path = graph(tmp_path / "line.onnx", [node], {"w": (4, 3, 2)}, [1, 3, 8])
    with pytest.raises(ValueError, match=r"Conv 'line': only 2-D"):
        read_onnx(path)


def test_not_a_graph(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("layer, 1, 2")
    with pytest.raises(ValueError, match=r"text.onnx: not an ONNX graph"):
        read_onnx(path)
