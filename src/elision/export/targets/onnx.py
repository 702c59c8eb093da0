"""ONNX: operations on real numbers between pairs that quantise and dequantise (QDQ)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elision.common.extras import check_installed
from elision.common.files import replacing
from elision.export.graph import QuantisedGraph
from elision.export.operations import (
    Add,
    Average,
    Concatenate,
    Convolution,
    Linear,
    Lookup,
    MaxPool,
    Multiply,
    Operation,
    Pad,
    Reshape,
    Slice,
)
from elision.export.operations.base import HIGHEST, LOWEST, Clamped
from elision.export.targets.base import Target
from elision.layers.finalize import save_onnx

__all__ = ["Onnx"]

#: Version of the operators: the first whose quantising pairs have scales by channel and
#: whose pads and maxima take int8.
_OPSET = 17

#: Inputs that the interpreter is given at once (own choice).
_AT_ONCE = 64

#: Option of a session, and its value, with which a CPU that has no dot product of bytes
#: (AVX-512 VNNI, AVX-VNNI) adds them exactly; without it, ONNX Runtime adds pairs of
#: products in 16 bits there, which saturate (its guide "Quantize ONNX Models").
_EXACT_SUMS = ("session.x64quantprecision", "1")

#: Version of the file's layout that came with these operators.
_LAYOUT = 8


class Onnx(Target):
    """ONNX, float32 in and out, int8 between: each sum is one that ONNX Runtime fuses.

    A convolution, linear layer, sum, product or average reads dequantised codes and its
    result is quantised, with the graph's scales and zero points. ONNX Runtime makes each
    such pattern one integer kernel, whose factor is a float32 that rounds halves to even:
    codes differ by one from the graph's where a sum is close to a half. Copies work on
    int8 as they are; functions are read from their tables.

    Reference: ONNX, operators ``QuantizeLinear`` and ``DequantizeLinear``.

    Example:
        >>> from elision.export.targets import TARGETS
        >>> TARGETS["onnx"].interpreter
        'ONNX Runtime'
    """

    key = "onnx"
    suffix = ".onnx"
    needs, extra = ("onnx", "onnxruntime"), "onnx-runtime"
    interpreter = "ONNX Runtime"

    def write(self, graph: QuantisedGraph, path: Path) -> None:
        """See :class:`Target`."""
        self.check()
        model = _Writer(graph).model()
        with replacing(path) as temporary:
            temporary.write_bytes(model.SerializeToString())

    def run(self, path: Path, graph: QuantisedGraph, codes: Tensor) -> Tensor:
        """See :class:`Target`."""
        read, written = graph.values[graph.input], graph.values[graph.output]
        real = ((codes.double() - read.zero) * read.scale).float()
        steps = self.run_float(path, real).double() / written.scale
        return (steps.round() + written.zero).to(torch.int8)

    def check_float(self) -> None:
        """See :class:`Target`; torch's exporter needs one module more."""
        check_installed("onnxscript", self.extra, "target 'onnx' without quantising")

    def write_float(self, model: nn.Module, example: Tensor, path: Path) -> None:
        """See :class:`Target`; by torch's exporter."""
        self.check_float()
        options = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
        save_onnx(model, example, path, verbose=False, external_data=False, **options)

    def run_float(self, path: Path, inputs: Tensor) -> Tensor:
        """See :class:`Target`; on as many threads as torch has."""
        self.check()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry(*_EXACT_SUMS)
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        (own,) = session.get_inputs()
        parts = [
            torch.from_numpy(session.run(None, {own.name: part.numpy()})[0])
            for part in inputs.split(_AT_ONCE)
        ]
        return torch.cat(parts)


class _Writer:
    """Nodes and constants of one file."""

    def __init__(self, graph: QuantisedGraph) -> None:
        self._graph = graph
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def model(self) -> Any:
        """The file, checked by ONNX's own checker."""
        import onnx
        from onnx import TensorProto, helper

        graph = self._graph
        self._quantise(graph.input, _codes_of(graph.input), graph.input)
        for operation in graph.operations:
            _WRITERS[type(operation)](self, operation)
        result = f"{graph.output}/real"
        self._dequantise(graph.output, result)

        def described(name: str, value: str) -> Any:
            shape = ["batch", *graph.values[value].shape]
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        made = helper.make_model(
            helper.make_graph(
                self._nodes,
                graph.name,
                [described(graph.input, graph.input)],
                [described(result, graph.output)],
                list(self._constants.values()),
            ),
            producer_name="elision",
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_LAYOUT,
        )
        onnx.checker.check_model(made, full_check=True)
        return made

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node with one output, which is returned."""
        from onnx import helper

        name = f"{output}:{kind}"
        self._nodes.append(
            helper.make_node(kind, inputs, [output], name=name, **attributes)
        )
        return output

    def constant(self, name: str, value: Any, dtype: Any) -> str:
        """The name of an array in the file."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype)
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def _pair(self, value: str) -> tuple[str, str]:
        """Names of scale and zero point of a value."""
        own = self._graph.values[value]
        return (
            self.constant(f"{value}/scale", own.scale, np.float32),
            self.constant(f"{value}/zero", own.zero, np.int8),
        )

    def _quantise(self, real: str, codes: str, value: str) -> None:
        self.node("QuantizeLinear", [real, *self._pair(value)], codes)

    def _dequantise(self, value: str, real: str) -> str:
        return self.node(
            "DequantizeLinear", [_codes_of(value), *self._pair(value)], real
        )

    def reals(self, operation: Operation) -> list[str]:
        """Dequantised inputs of an operation, each for it alone."""
        return [
            self._dequantise(value, f"{operation.name}/in{i}")
            for i, value in enumerate(operation.inputs)
        ]

    def parameters(self, layer: Convolution | Linear) -> list[str]:
        """Dequantised weight and bias of a layer."""
        scale = layer.weight_scale.numpy()
        read = self._graph.values[layer.inputs[0]].scale
        found = []
        for name, codes, steps in (
            ("weight", layer.weight, scale),
            ("bias", layer.bias, read * scale),
        ):
            own = f"{layer.name}/{name}"
            array = codes.numpy()
            inputs = [
                self.constant(own, array, array.dtype),
                self.constant(f"{own}/scale", steps, np.float32),
                self.constant(f"{own}/zero", np.zeros(len(steps)), array.dtype),
            ]
            found.append(self.node("DequantizeLinear", inputs, f"{own}/real", axis=0))
        return found

    def finish(self, operation: Clamped, real: str, codes: str | None = None) -> None:
        """Clamp a real result and quantise it."""
        own = self._graph.values[operation.name]
        if operation.low > LOWEST or operation.high < HIGHEST:
            limits = [
                self.constant(
                    f"{operation.name}/{end}", (code - own.zero) * own.scale, np.float32
                )
                for end, code in (("low", operation.low), ("high", operation.high))
            ]
            real = self.node("Clip", [real, *limits], f"{operation.name}/clamped")
        self._quantise(real, codes or _codes_of(operation.name), operation.name)


def _codes_of(value: str) -> str:
    """Name of a value's codes in the file."""
    return f"{value}/codes"


def _convolution(writer: _Writer, own: Convolution) -> None:
    inputs = [*writer.reals(own), *writer.parameters(own)]
    real = writer.node(
        "Conv",
        inputs,
        f"{own.name}/sum",
        strides=own.stride,
        dilations=own.dilation,
        pads=own.padding,
        group=own.groups,
        kernel_shape=list(own.weight.shape[2:]),
    )
    writer.finish(own, real)


def _linear(writer: _Writer, own: Linear) -> None:
    inputs = [*writer.reals(own), *writer.parameters(own)]
    writer.finish(own, writer.node("Gemm", inputs, f"{own.name}/sum", transB=1))


def _add(writer: _Writer, own: Add) -> None:
    writer.finish(own, writer.node("Add", writer.reals(own), f"{own.name}/sum"))


def _multiply(writer: _Writer, own: Multiply) -> None:
    writer.finish(own, writer.node("Mul", writer.reals(own), f"{own.name}/product"))


def _average(writer: _Writer, own: Average) -> None:
    real = writer.node(
        "AveragePool",
        writer.reals(own),
        f"{own.name}/mean",
        kernel_shape=own.kernel,
        strides=own.stride,
    )
    if own.keeps_pixels:
        writer.finish(own, real)
        return
    pooled = f"{own.name}/pooled"
    writer.finish(own, real, pooled)
    writer.node("Flatten", [pooled], _codes_of(own.name))


def _max_pool(writer: _Writer, own: MaxPool) -> None:
    writer.node(
        "MaxPool",
        [_codes_of(own.inputs[0])],
        _codes_of(own.name),
        kernel_shape=own.kernel,
        strides=own.stride,
        dilations=own.dilation,
        pads=own.padding,
    )


def _concatenate(writer: _Writer, own: Concatenate) -> None:
    codes = [_codes_of(value) for value in own.inputs]
    writer.node("Concat", codes, _codes_of(own.name), axis=own.axis)


def _pad(writer: _Writer, own: Pad) -> None:
    pads = [0, *own.before, 0, *own.behind]
    inputs = [
        _codes_of(own.inputs[0]),
        writer.constant(f"{own.name}/pads", pads, np.int64),
        writer.constant(f"{own.name}/value", own.zero, np.int8),
    ]
    writer.node("Pad", inputs, _codes_of(own.name))


def _slice(writer: _Writer, own: Slice) -> None:
    axes = range(1, len(own.start) + 1)
    inputs = [_codes_of(own.inputs[0])] + [
        writer.constant(f"{own.name}/{name}", list(values), np.int64)
        for name, values in (
            ("start", own.start),
            ("stop", own.stop),
            ("axes", axes),
            ("step", own.step),
        )
    ]
    writer.node("Slice", inputs, _codes_of(own.name))


def _reshape(writer: _Writer, own: Reshape) -> None:
    shape = writer.constant(f"{own.name}/shape", [-1, *own.shape], np.int64)
    writer.node("Reshape", [_codes_of(own.inputs[0]), shape], _codes_of(own.name))


def _lookup(writer: _Writer, own: Lookup) -> None:
    from onnx import TensorProto

    whole = writer.node(
        "Cast",
        [_codes_of(own.inputs[0])],
        f"{own.name}/whole",
        to=TensorProto.INT32,
    )
    first = writer.constant(f"{own.name}/first", -LOWEST, np.int32)
    index = writer.node("Add", [whole, first], f"{own.name}/index")
    table = writer.constant(f"{own.name}/table", own.table.numpy(), np.int8)
    writer.node("Gather", [table, index], _codes_of(own.name))


_WRITERS: dict[type[Operation], Callable[[_Writer, Any], None]] = {
    Convolution: _convolution,
    Linear: _linear,
    Add: _add,
    Multiply: _multiply,
    Average: _average,
    MaxPool: _max_pool,
    Concatenate: _concatenate,
    Pad: _pad,
    Slice: _slice,
    Reshape: _reshape,
    Lookup: _lookup,
}
