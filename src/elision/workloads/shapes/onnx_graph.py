"""Layer shapes from an ONNX graph; needs the ``onnx`` extra."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elision.products import Conv2dGeometry, Geometry, MatmulGeometry

__all__ = ["read_onnx"]


def read_onnx(path: str | Path, batch: int = 1) -> list[tuple[str, Geometry]]:
    """Shapes of the ``Conv``, ``Gemm`` and ``MatMul`` nodes whose weights are stored.

    A ``MatMul`` of two computed tensors (attention scores) has no weight and is left
    out. The graph is not run: shapes come from ONNX's own inference.

    Args:
        path: an ``.onnx`` file.
        batch: size of every symbolic dimension of the graph's inputs.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ValueError: the file is not an ONNX graph, or a node is not read here
            (named): a 1-D or 3-D convolution, padding that differs between two sides,
            or a shape that cannot be inferred.
    """
    try:
        import onnx
    except ImportError as error:
        raise ModuleNotFoundError(
            "reading ONNX graphs needs onnx, which is not installed: "
            "pip install 'elision[onnx]'",
            name="onnx",
        ) from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # protobuf's own kinds of error
        raise ValueError(f"{path}: not an ONNX graph: {error}") from error
    graph = model.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_value = batch
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = dict(weights)
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        sizes = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dimension.dim_value for dimension in sizes)
    layers: list[tuple[str, Geometry]] = []
    for index, node in enumerate(graph.node):
        if node.op_type not in _READERS or node.input[1] not in weights:
            continue
        name = node.name or f"{node.op_type}_{index}"
        entry = shapes.get(node.input[0], ())
        if not entry or not all(entry):
            raise ValueError(f"{path}: {node.op_type} {name!r}: its input has no shape")
        attributes = {
            a.name: onnx.helper.get_attribute_value(a) for a in node.attribute
        }
        try:
            reader = _READERS[node.op_type]
            layers.append((name, reader(entry, weights[node.input[1]], attributes)))
        except ValueError as error:
            raise ValueError(f"{path}: {node.op_type} {name!r}: {error}") from None
    return layers


def _conv(
    entry: tuple[int, ...], weight: tuple[int, ...], attributes: Mapping[str, Any]
) -> Geometry:
    if len(entry) != 4:
        raise ValueError(f"only 2-D convolutions are known, the input is {entry}")
    stride = tuple(attributes.get("strides", (1, 1)))
    dilation = tuple(attributes.get("dilations", (1, 1)))
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(entry[2:], weight[2:], stride, dilation)
    if pads[:2] != pads[2:]:
        raise ValueError(f"padding must be equal on both sides, got {pads}")
    return Conv2dGeometry.of(
        entry,
        weight,
        stride=stride,
        padding=pads[:2],
        dilation=dilation,
        groups=attributes.get("group", 1),
    )


def _same(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[int, ...]:
    """Padding (begins, ends) that gives ``ceil(size / stride)`` outputs."""
    begins, ends = [], []
    for size, taps, step, apart in zip(sizes, kernel, stride, dilation, strict=True):
        outputs = -(-size // step)
        total = max((outputs - 1) * step + apart * (taps - 1) + 1 - size, 0)
        begins.append(total // 2)
        ends.append(total - total // 2)
    return (*begins, *ends)


def _gemm(
    entry: tuple[int, ...], weight: tuple[int, ...], attributes: Mapping[str, Any]
) -> Geometry:
    rows, inner = entry[::-1] if attributes.get("transA") else entry
    columns = weight[0] if attributes.get("transB") else weight[1]
    return MatmulGeometry(rows, inner, columns)


def _matmul(
    entry: tuple[int, ...], weight: tuple[int, ...], attributes: Mapping[str, Any]
) -> Geometry:
    del attributes
    if len(weight) != 2:
        raise ValueError(f"the weight must be a matrix, its shape is {weight}")
    rows = 1
    for size in entry[:-1]:
        rows *= size
    return MatmulGeometry(rows, weight[0], weight[1])


_READERS = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
