"""What is known of the values of a graph before it runs: types, shapes, small arrays.

Sizes of later values hang on arithmetic with shapes (``Shape``, ``Gather``, ``Concat``,
``Reshape``), so that arrays of few elements are computed, by ONNX's own reference
implementation; of larger ones, such as weights, the type is enough.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

__all__ = ["NOTHING", "Value", "inferred", "of_tensor"]

#: Arrays of more elements are not computed.
_FEW = 4096


@dataclass(frozen=True)
class Value:
    """What is known of one value.

    Attributes:
        type: as ONNX says it; None: nothing.
        array: its elements, where they are known and few.
        constant: whether it is the same in every run.
    """

    type: onnx.TypeProto | None = None
    array: np.ndarray | None = None
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Its sizes; None unless all are known."""
        if self.type is None or not self.type.tensor_type.HasField("shape"):
            return None
        sizes = self.type.tensor_type.shape.dim
        if not all(size.HasField("dim_value") for size in sizes):
            return None
        return tuple(size.dim_value for size in sizes)

    def of_shape(self, sizes: Sequence[int] | None) -> "Value":
        """The same kind of value, unknown and of this shape; None: of any."""
        if self.type is None or not self.type.HasField("tensor_type"):
            return NOTHING
        kind = self.type.tensor_type.elem_type
        return Value(helper.make_tensor_type_proto(kind, sizes))


NOTHING = Value()


def of_tensor(tensor: onnx.TensorProto) -> Value:
    """An initializer, whose elements may lie in another file."""
    sizes = list(tensor.dims)
    own = tensor.data_location != onnx.TensorProto.EXTERNAL
    few = own and math.prod(sizes) <= _FEW
    array = numpy_helper.to_array(tensor) if few else None
    return Value(helper.make_tensor_type_proto(tensor.data_type, sizes), array, True)


def inferred(
    node: onnx.NodeProto,
    inputs: Sequence[Value],
    opsets: Mapping[str, int],
    constant: bool,
) -> list[Value]:
    """The outputs of a node without bodies; what cannot be known stays unknown."""
    named = {
        name: value for name, value in zip(node.input, inputs, strict=True) if name
    }
    types = _types(node, named, opsets)
    arrays = _arrays(node, named, opsets, types)
    return [
        Value(types.get(name), arrays.get(name), constant) if name else NOTHING
        for name in node.output
    ]


def _types(
    node: onnx.NodeProto, inputs: Mapping[str, Value], opsets: Mapping[str, int]
) -> dict[str, onnx.TypeProto]:
    imports = [helper.make_opsetid(*opset) for opset in opsets.items()]
    try:
        schema = onnx.defs.get_schema(
            node.op_type, opsets.get(node.domain, 1), node.domain
        )
        return onnx.shape_inference.infer_node_outputs(
            schema,
            node,
            {name: value.type or onnx.TypeProto() for name, value in inputs.items()},
            {
                name: numpy_helper.from_array(value.array)
                for name, value in inputs.items()
                if value.array is not None
            },
            opset_imports=imports,
        )
    # An operator of another domain, an input of which nothing is known, and others.
    except Exception:
        return {}


def _arrays(
    node: onnx.NodeProto,
    inputs: Mapping[str, Value],
    opsets: Mapping[str, int],
    types: Mapping[str, onnx.TypeProto],
) -> dict[str, Any]:
    if node.op_type == "Shape" and not node.domain:
        (entry,) = inputs.values()
        ends = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if entry.shape is None:
            return {}
        sizes = entry.shape[ends.get("start") : ends.get("end")]
        return {node.output[0]: np.array(sizes, np.int64)}
    arrays = {name: value.array for name, value in inputs.items()}
    results = [Value(types.get(name)).shape for name in node.output if name]
    few = all(shape is not None and math.prod(shape) <= _FEW for shape in results)
    known = all(array is not None for array in arrays.values())
    if not (few and known) or node.domain or node.op_type.startswith("Random"):
        return {}
    graph = helper.make_graph(
        [node],
        "one node",
        [helper.make_value_info(name, onnx.TypeProto()) for name in arrays],
        [helper.make_value_info(name, onnx.TypeProto()) for name in node.output],
    )
    imports = [helper.make_opsetid(*opset) for opset in opsets.items()]
    try:
        model = helper.make_model(graph, opset_imports=imports)
        found = ReferenceEvaluator(model).run(None, arrays)
    except Exception:  # an operator that it does not have, or elements of another file
        return {}
    return dict(zip(node.output, found, strict=True))
