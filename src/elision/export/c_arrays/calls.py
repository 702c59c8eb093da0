"""Operations as calls of C functions, with the arrays that they read."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from elision.export.graph import QuantisedGraph, Value
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
    Slice,
)

__all__ = ["Call", "call_of"]


@dataclass(frozen=True)
class Call:
    """What one operation is in C.

    Attributes:
        lines: statements, each without indentation.
        arrays: constant arrays, by name: C type and values.
    """

    lines: list[str]
    arrays: dict[str, tuple[str, Tensor]] = field(default_factory=dict)


def call_of(
    operation: Operation, index: int, graph: QuantisedGraph, places: Mapping[str, str]
) -> Call:
    """The call that writes an operation's value.

    Args:
        operation: of any kind but a reshape, which does nothing.
        index: number of the operation, from which arrays are named.
        graph: the values that it reads.
        places: C expression of the address of each value.
    """
    return _CALLS[type(operation)](operation, _Names(index, graph, operation, places))


class _Names:
    """What a maker of calls asks for: addresses, shapes, names of arrays."""

    def __init__(
        self,
        index: int,
        graph: QuantisedGraph,
        operation: Operation,
        places: Mapping[str, str],
    ) -> None:
        self.index, self.graph, self.operation = index, graph, operation
        self.reads = [places[name] for name in operation.inputs]
        self.written = places[operation.name]

    def read(self, index: int = 0) -> Value:
        """A value that is read."""
        return self.graph.values[self.operation.inputs[index]]

    @property
    def value(self) -> Value:
        """The value that is written."""
        return self.graph.values[self.operation.name]

    def array(self, name: str) -> str:
        return f"{name}_{self.index}"


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A shape as (channels, height, width), with ones behind."""
    padded = (*shape, 1, 1)[: max(3, len(shape))]
    if len(padded) != 3:
        raise ValueError(f"target c: a value of shape {shape} has more than three axes")
    return padded[0], padded[1], padded[2]


def _three(numbers: tuple[int, ...], fill: int) -> tuple[int, ...]:
    return (*numbers, fill, fill)[:3]


def _write(function: str, *arguments: Any) -> list[str]:
    return [f"{function}({', '.join(map(str, arguments))});"]


def _layer_arrays(operation: Any, names: _Names) -> dict[str, tuple[str, Tensor]]:
    return {
        names.array("weight"): ("int8_t", operation.weight),
        names.array("bias"): ("int32_t", operation.bias),
        names.array("mantissa"): ("int32_t", operation.rescale.mantissa),
        names.array("shift"): ("uint8_t", operation.rescale.shift),
    }


def _convolution(operation: Convolution, names: _Names) -> Call:
    kernels, _, rows, columns = operation.weight.shape
    top, left, _, _ = operation.padding
    shape = [
        *_image(names.read().shape),
        kernels,
        *_image(names.value.shape)[1:],
        rows,
        columns,
        *operation.stride,
        top,
        left,
        *operation.dilation,
        operation.groups,
        operation.input_zero,
        operation.zero,
        operation.low,
        operation.high,
    ]
    arrays = _layer_arrays(operation, names)
    own = names.array("shape")
    numbers = ", ".join(map(str, shape))
    lines = [f"static const convolution_shape {own} = {{{numbers}}};"]
    lines += _write("convolution", names.reads[0], names.written, *arrays, f"&{own}")
    return Call(["{", *(f"    {line}" for line in lines), "}"], arrays)


def _linear(operation: Linear, names: _Names) -> Call:
    columns, inner = operation.weight.shape
    arrays = _layer_arrays(operation, names)
    return Call(
        _write(
            "linear",
            names.reads[0],
            names.written,
            *arrays,
            inner,
            columns,
            operation.input_zero,
            operation.zero,
            operation.low,
            operation.high,
        ),
        arrays,
    )


def _add(operation: Add, names: _Names) -> Call:
    mantissas = operation.rescale.mantissa.tolist()
    return Call(
        _write(
            "add",
            *names.reads,
            names.written,
            names.value.bytes,
            *operation.zeros,
            *mantissas,
            int(operation.rescale.shift[0]),
            operation.zero,
            operation.low,
            operation.high,
        )
    )


def _multiply(operation: Multiply, names: _Names) -> Call:
    return Call(
        _write(
            "multiply",
            *names.reads,
            names.written,
            names.value.bytes,
            names.value.bytes // names.read(1).bytes,
            *operation.zeros,
            *_one(operation),
            operation.zero,
            operation.low,
            operation.high,
        )
    )


def _average(operation: Average, names: _Names) -> Call:
    return Call(
        _write(
            "average",
            names.reads[0],
            names.written,
            *_image(names.read().shape),
            *_image(names.value.shape)[1:],
            *operation.kernel,
            *operation.stride,
            operation.input_zero,
            *_one(operation),
            operation.zero,
            operation.low,
            operation.high,
        )
    )


def _maximum(operation: MaxPool, names: _Names) -> Call:
    top, left, _, _ = operation.padding
    return Call(
        _write(
            "maximum",
            names.reads[0],
            names.written,
            *_image(names.read().shape),
            *_image(names.value.shape)[1:],
            *operation.kernel,
            *operation.stride,
            top,
            left,
            *operation.dilation,
        )
    )


def _concatenate(operation: Concatenate, names: _Names) -> Call:
    axis = operation.axis - 1
    count, apart = _blocks(names.value.shape, axis)
    lines, offset = [], 0
    for index, read in enumerate(names.reads):
        _, block = _blocks(names.read(index).shape, axis)
        lines += _write(
            "concatenate", read, f"{names.written} + {offset}", count, block, apart
        )
        offset += block
    return Call(lines)


def _pad(operation: Pad, names: _Names) -> Call:
    return Call(
        _write(
            "pad",
            names.reads[0],
            names.written,
            *_image(names.read().shape),
            *_three(operation.before, 0),
            *_image(names.value.shape),
            operation.zero,
        )
    )


def _slice(operation: Slice, names: _Names) -> Call:
    return Call(
        _write(
            "slice",
            names.reads[0],
            names.written,
            *_image(names.read().shape)[1:],
            *_three(operation.start, 0),
            *_three(operation.step, 1),
            *_image(names.value.shape),
        )
    )


def _lookup(operation: Lookup, names: _Names) -> Call:
    table = names.array("table")
    return Call(
        _write("lookup", names.reads[0], names.written, names.value.bytes, table),
        {table: ("int8_t", operation.table)},
    )


def _one(operation: Any) -> tuple[int, int]:
    """Mantissa and shift of a single factor."""
    rescale = operation.rescale
    return int(rescale.mantissa.reshape(-1)[0]), int(rescale.shift.reshape(-1)[0])


def _blocks(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """Number and size of the blocks that a shape has from an axis on."""
    return math.prod(shape[:axis]), math.prod(shape[axis:])


_CALLS: dict[type[Operation], Callable[[Any, _Names], Call]] = {
    Add: _add,
    Average: _average,
    Concatenate: _concatenate,
    Convolution: _convolution,
    Linear: _linear,
    Lookup: _lookup,
    MaxPool: _maximum,
    Multiply: _multiply,
    Pad: _pad,
    Slice: _slice,
}
