"""LiteRT (TensorFlow Lite): a file of int8 operations, channels last."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    code_of,
)
from elision.export.operations.base import HIGHEST, LOWEST, Clamped
from elision.export.targets.base import Target

__all__ = ["LiteRt"]

#: Of the file's layout, and the four letters by which a reader knows it.
_LAYOUT, _IDENTIFIER = 3, b"TFL3"

#: Versions of the operators whose int8 forms the file uses: what a reader must know.
_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "ADD": 2,
    "MUL": 2,
    "MEAN": 2,
    "MAX_POOL_2D": 2,
    "CONCATENATION": 2,
    "PAD": 2,
    "PADV2": 2,
    "STRIDED_SLICE": 2,
    "TRANSPOSE": 2,
    "GATHER": 2,
}

#: Padding where the file says none: the operator's own rule would pad other sides.
_SAME, _VALID = 0, 1


class LiteRt(Target):
    """LiteRT's flat buffer, int8 in and out, one example, ``(1, H, W, C)``.

    Written from the graph by the schema that LiteRT ships, so it has the graph's codes,
    scales and zero points. TensorFlow Lite for Microcontrollers is another interpreter of
    the format and rounds otherwise: its codes are not always LiteRT's. Where the rule
    ``SAME`` pads other sides than torch does (an even total of which the end gets the odd
    pixel), a ``PAD`` stands before the convolution. An average over windows is a
    depthwise convolution of ones, since the pooling operator cannot change the scale.

    LiteRT rounds twice where the graph rounds once: codes differ by one now and then.

    Example:
        >>> from elision.export.targets import TARGETS
        >>> TARGETS["litert"].suffix
        '.tflite'
    """

    key = "litert"
    suffix = ".tflite"
    needs, extra = ("ai_edge_litert", "flatbuffers"), "litert"
    interpreter = "LiteRT"

    def write(self, graph: QuantisedGraph, path: Path) -> None:
        """See :class:`Target`."""
        self.check()
        content = _Writer(graph).file()
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def run(self, path: Path, graph: QuantisedGraph, codes: Tensor) -> Tensor:
        """See :class:`Target`; one example after the other, on one thread."""
        self.check()
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        (read,), (written,) = (
            interpreter.get_input_details(),
            interpreter.get_output_details(),
        )
        found = []
        for example in channels_last(codes).numpy():
            interpreter.set_tensor(read["index"], example[None])
            interpreter.invoke()
            found.append(interpreter.get_tensor(written["index"])[0].copy())
        return channels_first(torch.from_numpy(np.stack(found)))


def channels_last(codes: Tensor) -> Tensor:
    """``(N, C, H, W)`` as ``(N, H, W, C)``; vectors as they are."""
    return codes.permute(0, 2, 3, 1).contiguous() if codes.ndim == 4 else codes


def channels_first(codes: Tensor) -> Tensor:
    """``(N, H, W, C)`` as ``(N, C, H, W)``; vectors as they are."""
    return codes.permute(0, 3, 1, 2).contiguous() if codes.ndim == 4 else codes


class _Writer:
    """Tensors, buffers and operators of one file."""

    def __init__(self, graph: QuantisedGraph) -> None:
        from ai_edge_litert import schema_py_generated

        self.schema: Any = schema_py_generated
        self._graph = graph
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [self.schema.BufferT()]  # the first is always empty
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}
        #: Index of the tensor that holds a value.
        self.of: dict[str, int] = {}

    def file(self) -> bytes:
        """The whole file."""
        import flatbuffers

        graph, schema = self._graph, self.schema
        self.of[graph.input] = self.value(graph.input)
        for operation in graph.operations:
            _WRITERS[type(operation)](self, operation)
        part = schema.SubGraphT()
        part.name = graph.name
        part.tensors, part.operators = self._tensors, self._operators
        part.inputs, part.outputs = [self.of[graph.input]], [self.of[graph.output]]
        model = schema.ModelT()
        model.version, model.description = _LAYOUT, "elision"
        model.subgraphs, model.buffers = [part], self._buffers
        model.operatorCodes = []
        for name in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            # Readers from before there were more than 127 operators look here.
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(name, 1)
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: str = "INT8",
        scale: Any = (),
        zero: Any = (),
        axis: int = 0,
        data: np.ndarray | None = None,
    ) -> int:
        """A tensor of the file, a constant if it has data; its index."""
        schema = self.schema
        made = schema.TensorT()
        made.name, made.shape = name, list(shape)
        made.type = getattr(schema.TensorType, kind)
        made.buffer = 0
        if len(scale):
            own = schema.QuantizationParametersT()
            own.scale = [float(s) for s in scale]
            own.zeroPoint = [int(z) for z in zero]
            own.quantizedDimension = axis
            made.quantization = own
        self._tensors.append(made)
        if data is not None:
            self.fill(len(self._tensors) - 1, data)
        return len(self._tensors) - 1

    def fill(self, tensor: int, data: np.ndarray) -> None:
        """Make a tensor a constant."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        self._tensors[tensor].buffer = len(self._buffers)
        self._buffers.append(buffer)

    def value(self, name: str, suffix: str = "", shape: Any = None) -> int:
        """A tensor with the scale of a value of the graph, and its shape or another."""
        own = self._graph.values[name]
        dims = self.shape(name) if shape is None else tuple(shape)
        return self.tensor(name + suffix, dims, "INT8", [own.scale], [own.zero])

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value in the file: one example, channels last."""
        own = self._graph.values[name].shape
        return (1, own[1], own[2], own[0]) if len(own) == 3 else (1, *own)

    def integers(self, name: str, values: Any) -> int:
        """A constant of int32."""
        data = np.asarray(values, np.int32)
        return self.tensor(name, data.shape, "INT32", data=data)

    def operator(
        self, name: str, inputs: list[int], output: int, options: str = "", **given: Any
    ) -> int:
        """An operator with its options; the index of its output."""
        made = self.schema.OperatorT()
        made.opcodeIndex = self._codes.setdefault(name, len(self._codes))
        made.inputs, made.outputs = inputs, [output]
        kind = options or f"{name.title().replace('_', '')}Options"
        made.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
        made.builtinOptions = getattr(self.schema, f"{kind}T")()
        for field, value in given.items():
            setattr(made.builtinOptions, field, value)
        self._operators.append(made)
        return output

    def reads(self, operation: Operation) -> list[int]:
        """Tensors that an operation reads."""
        return [self.of[name] for name in operation.inputs]

    def finish(self, operation: Operation, output: int) -> None:
        """Say which tensor holds an operation's value."""
        self.of[operation.name] = output

    def clamp(self, operation: Clamped) -> int:
        """The activation function whose limits are the operation's.

        Raises:
            ValueError: LiteRT has none.
        """
        own = self._graph.values[operation.name]
        limits = (operation.low, operation.high)
        kinds = self.schema.ActivationFunctionType
        for low, high, kind in (
            (-np.inf, np.inf, kinds.NONE),
            (0.0, np.inf, kinds.RELU),
            (0.0, 6.0, kinds.RELU6),
            (-1.0, 1.0, kinds.RELU_N1_TO_1),
        ):
            codes = [code_of(end, own.scale, own.zero) for end in (low, high)]
            if limits == tuple(codes):
                return kind
        raise ValueError(
            f"{operation.name}: target 'litert' clamps as relu, relu6 or hardtanh do, not "
            f"to the codes {limits[0]} to {limits[1]}"
        )

    def unclamped(self, operation: Clamped) -> None:
        """Raise ValueError if an operation without an activation function clamps."""
        if self.clamp(operation) != self.schema.ActivationFunctionType.NONE and (
            operation.low > operation.zero or operation.high < HIGHEST
        ):
            raise ValueError(
                f"{operation.name} ({operation.kind}): target 'litert' has no activation "
                "function behind it"
            )

    def layer(
        self, own: Convolution | Linear, weight: np.ndarray, axis: int
    ) -> list[int]:
        """Constants of a layer: weight and bias."""
        scale = own.weight_scale.numpy().astype(np.float32)
        read = np.float32(self._graph.values[own.inputs[0]].scale)
        zeros = np.zeros(len(scale), np.int64)
        return [
            self.tensor(
                f"{own.name}/weight", weight.shape, "INT8", scale, zeros, axis, weight
            ),
            self.tensor(
                f"{own.name}/bias",
                (len(scale),),
                "INT32",
                scale * read,
                zeros,
                0,
                own.bias.numpy(),
            ),
        ]

    def padded(
        self, own: Convolution | MaxPool, dilation: tuple[int, int], lowest: bool
    ) -> tuple[int, int]:
        """The tensor that a window slides over, and the rule of its padding."""
        (name,) = own.inputs
        height, width = self._graph.values[name].shape[1:]
        sizes = own.kernel if isinstance(own, MaxPool) else own.weight.shape[2:]
        top, left, bottom, right = own.padding
        if not any(own.padding):
            return self.of[name], _VALID
        same = []
        for size, kernel, step, apart, begin, end in zip(
            (height, width), sizes, own.stride, dilation, (top, left), (bottom, right),
            strict=True,
        ):  # fmt: skip
            total = max(
                (-(-size // step) - 1) * step + apart * (kernel - 1) + 1 - size, 0
            )
            same.append((begin, end) == (total // 2, total - total // 2))
        if all(same):
            return self.of[name], _SAME
        shape = (1, height + top + bottom, width + left + right, self.shape(name)[3])
        pads = self.integers(
            f"{own.name}/pads", [[0, 0], [top, bottom], [left, right], [0, 0]]
        )
        output = self.value(name, f"/padded for {own.name}", shape)
        if not lowest:
            return self.operator("PAD", [self.of[name], pads], output), _VALID
        value = self._graph.values[name]
        data = np.array([LOWEST], np.int8)
        least = self.tensor(
            f"{own.name}/least", (1,), "INT8", [value.scale], [value.zero], data=data
        )
        return (
            self.operator(
                "PADV2", [self.of[name], pads, least], output, "PadV2Options"
            ),
            _VALID,
        )


def _convolution(writer: _Writer, own: Convolution) -> None:
    weight = own.weight.permute(0, 2, 3, 1).contiguous()
    channels = writer.shape(own.inputs[0])[3]
    depthwise = own.groups == channels and own.weight.shape[1] == 1 and own.groups > 1
    if own.groups > 1 and not depthwise:
        raise ValueError(
            f"{own.name}: target 'litert' has convolutions of one group or as many groups "
            f"as channels ({channels}), not {own.groups}"
        )
    source, padding = writer.padded(own, own.dilation, lowest=False)
    options = {
        "padding": padding,
        "strideH": own.stride[0],
        "strideW": own.stride[1],
        "dilationHFactor": own.dilation[0],
        "dilationWFactor": own.dilation[1],
        "fusedActivationFunction": writer.clamp(own),
    }
    output = writer.value(own.name)
    if depthwise:
        rows = own.weight[:, 0].permute(1, 2, 0)[None].contiguous().numpy()
        inputs = [source, *writer.layer(own, rows, 3)]
        writer.operator(
            "DEPTHWISE_CONV_2D",
            inputs,
            output,
            "DepthwiseConv2DOptions",
            depthMultiplier=len(own.weight) // channels,
            **options,
        )
    else:
        inputs = [source, *writer.layer(own, weight.numpy(), 0)]
        writer.operator("CONV_2D", inputs, output, "Conv2DOptions", **options)
    writer.finish(own, output)


def _linear(writer: _Writer, own: Linear) -> None:
    inputs = [*writer.reads(own), *writer.layer(own, own.weight.numpy(), 0)]
    output = writer.value(own.name)
    writer.operator(
        "FULLY_CONNECTED", inputs, output, fusedActivationFunction=writer.clamp(own)
    )
    writer.finish(own, output)


def _two(name: str) -> Callable[[_Writer, Any], None]:
    def write(writer: _Writer, own: Add | Multiply) -> None:
        output = writer.value(own.name)
        activation = writer.clamp(own)
        writer.operator(
            name, writer.reads(own), output, fusedActivationFunction=activation
        )
        writer.finish(own, output)

    return write


def _average(writer: _Writer, own: Average) -> None:
    shape = writer.shape(own.inputs[0])
    output = writer.value(own.name)
    if own.kernel == shape[1:3]:
        writer.unclamped(own)
        axes = writer.integers(f"{own.name}/axes", [1, 2])
        inputs = [*writer.reads(own), axes]
        writer.operator(
            "MEAN", inputs, output, "ReducerOptions", keepDims=own.keeps_pixels
        )
        writer.finish(own, output)
        return
    channels, pixels = shape[3], own.kernel[0] * own.kernel[1]
    ones = torch.ones(channels, 1, *own.kernel, dtype=torch.int8)
    _convolution(
        writer,
        Convolution(
            name=own.name,
            inputs=own.inputs,
            zero=own.zero,
            low=own.low,
            high=own.high,
            weight=ones,
            weight_scale=torch.full((channels,), 1 / pixels, dtype=torch.float64),
            bias=torch.zeros(channels, dtype=torch.int32),
            rescale=own.rescale,
            input_zero=own.input_zero,
            stride=own.stride,
            groups=channels,
        ),
    )


def _max_pool(writer: _Writer, own: MaxPool) -> None:
    if own.dilation != (1, 1):
        raise ValueError(f"{own.name}: target 'litert' has no maximum with a dilation")
    source, padding = writer.padded(own, own.dilation, lowest=True)
    output = writer.value(own.name)
    writer.operator(
        "MAX_POOL_2D",
        [source],
        output,
        "Pool2DOptions",
        padding=padding,
        strideH=own.stride[0],
        strideW=own.stride[1],
        filterHeight=own.kernel[0],
        filterWidth=own.kernel[1],
    )
    writer.finish(own, output)


def _concatenate(writer: _Writer, own: Concatenate) -> None:
    output = writer.value(own.name)
    axis = (0, 3, 1, 2)[own.axis] if len(writer.shape(own.name)) == 4 else own.axis
    writer.operator("CONCATENATION", writer.reads(own), output, axis=axis)
    writer.finish(own, output)


def _moved(values: tuple[int, ...]) -> list[int]:
    """Numbers of channels, height and width, the channels last."""
    return [*values[1:], values[0]] if len(values) == 3 else list(values)


def _pad(writer: _Writer, own: Pad) -> None:
    pairs = zip(_moved(own.before), _moved(own.behind), strict=True)
    pads = writer.integers(f"{own.name}/pads", [[0, 0], *map(list, pairs)])
    output = writer.value(own.name)
    writer.operator("PAD", [*writer.reads(own), pads], output)
    writer.finish(own, output)


def _slice(writer: _Writer, own: Slice) -> None:
    ends = [
        writer.integers(f"{own.name}/{name}", [first, *_moved(values)])
        for name, first, values in (
            ("start", 0, own.start),
            ("stop", 1, own.stop),
            ("step", 1, own.step),
        )
    ]
    output = writer.value(own.name)
    writer.operator("STRIDED_SLICE", [*writer.reads(own), *ends], output)
    writer.finish(own, output)


def _reshape(writer: _Writer, own: Reshape) -> None:
    """Torch's order has channels first: they are moved there and back where it matters."""
    (source,) = writer.reads(own)
    before, after = writer.shape(own.inputs[0]), writer.shape(own.name)
    if len(before) == 4 and before[1] * before[2] > 1 and before[3] > 1:
        order = writer.integers(f"{own.name}/first", [0, 3, 1, 2])
        shape = (1, before[3], before[1], before[2])
        moved = writer.value(own.inputs[0], f"/for {own.name}", shape)
        source = writer.operator("TRANSPOSE", [source, order], moved)
    back = len(after) == 4 and after[1] * after[2] > 1 and after[3] > 1
    shape = (1, after[3], after[1], after[2]) if back else after
    wanted = writer.integers(f"{own.name}/shape", shape)
    output = writer.value(own.name, "/moved" if back else "", shape)
    writer.operator("RESHAPE", [source, wanted], output, newShape=list(shape))
    if back:
        order = writer.integers(f"{own.name}/last", [0, 2, 3, 1])
        moved, output = output, writer.value(own.name)
        writer.operator("TRANSPOSE", [moved, order], output)
    writer.finish(own, output)


def _lookup(writer: _Writer, own: Lookup) -> None:
    shape = writer.shape(own.name)
    whole = writer.tensor(f"{own.name}/whole", shape, "INT32")
    index = writer.tensor(f"{own.name}/index", shape, "INT32")
    first = writer.integers(f"{own.name}/first", [-LOWEST])
    value = writer.value(own.name)
    table = writer.value(own.name, "/table", (256,))
    writer.fill(table, own.table.numpy())
    kinds = writer.schema.TensorType
    writer.operator(
        "CAST",
        writer.reads(own),
        whole,
        inDataType=kinds.INT8,
        outDataType=kinds.INT32,
    )
    writer.operator("ADD", [whole, first], index)
    writer.operator("GATHER", [table, index], value, axis=0)
    writer.finish(own, value)


_WRITERS: dict[type[Operation], Callable[[_Writer, Any], None]] = {
    Convolution: _convolution,
    Linear: _linear,
    Add: _two("ADD"),
    Multiply: _two("MUL"),
    Average: _average,
    MaxPool: _max_pool,
    Concatenate: _concatenate,
    Pad: _pad,
    Slice: _slice,
    Reshape: _reshape,
    Lookup: _lookup,
}
