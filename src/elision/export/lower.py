"""Steps of a network as integer operations, once every value has a scale."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
    as_codes,
    code_of,
)
from elision.export.program import Program, Step
from elision.export.rescale import Rescale

__all__ = ["KEEP_SCALE", "Lowering", "refuse_unsupported"]

#: Calls that give the same codes another shape.
_RESHAPES = (
    "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "_unsafe_view",
)  # fmt: skip

#: Calls that copy codes, so that what they read and write has one scale.
KEEP_SCALE = (
    "max_pool2d", "cat", "pad", "constant_pad_nd", "slice", *_RESHAPES,
)  # fmt: skip

#: Bits of a bias without its sign: half of int32, so that the sum has the other half.
_BIAS_BITS = 30


@dataclass(frozen=True)
class Quantities:
    """Shape, scale and zero point of a value.

    Example:
        >>> Quantities((3, 8, 8), 0.05, -128).zero
        -128
    """

    shape: tuple[int, ...]
    scale: float
    zero: int


class Lowering:
    """Maker of operations from steps.

    Args:
        program: the network.
        values: quantities of every value, by name.
        bits: of the weights.

    Example:
        >>> from elision.export.program import traced
        >>> program = traced(torch.nn.Linear(2, 1), torch.ones(2, 2))
        >>> values = {n: Quantities((k,), 0.1, 0) for n, k in (("input", 2), ("linear", 1))}
        >>> Lowering(program, values, 8).operation(program.steps[0]).kind
        'linear'
    """

    def __init__(
        self, program: Program, values: Mapping[str, Quantities], bits: int
    ) -> None:
        self._program, self._values, self._bits = program, values, bits

    def operation(self, step: Step) -> Operation:
        """The operation of a step.

        Raises:
            ValueError: the step's arguments have no integer form; the message names it.
        """
        return _MAKERS[step.call](self, step)

    def arguments(self, step: Step) -> dict[str, Any]:
        """Arguments of the call by name; its defaults where it gives none."""
        schema = step.node.target._schema.arguments  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]
        found = {a.name: a.default_value for a in schema}
        found |= dict(zip([a.name for a in schema], step.node.args, strict=False))
        return found | dict(step.node.kwargs)

    def read(self, step: Step, index: int = 0) -> Quantities:
        """Quantities of a value that a step reads."""
        return self._values[step.reads[index]]

    def written(self, step: Step) -> Quantities:
        """Quantities of the value that a step writes."""
        return self._values[step.name]

    def clamp(self, step: Step) -> dict[str, int]:
        """Zero point and limits of the codes of a step."""
        own = self.written(step)
        return {
            "zero": own.zero,
            "low": code_of(step.low, own.scale, own.zero),
            "high": code_of(step.high, own.scale, own.zero),
        }

    def weights(self, step: Step) -> dict[str, Any]:
        """Weights, their scales, bias and factors of a layer.

        A channel's scale is ``max|w|/F``, ``F = 2^(bits−1) − 1``; larger only where the
        bias would not fit into 31 bits otherwise, as that of a pruned channel may not.
        """
        arguments = self.arguments(step)
        if arguments["weight"].name not in self._program.tensors:
            raise ValueError(f"{step.name}: its weight is computed, not a parameter")
        weight = self._program.tensors[arguments["weight"].name].double()
        bias = arguments["bias"]
        bias = None if bias is None else self._program.tensors[bias.name].double()
        x, y = self.read(step), self.written(step)
        codes, scale = weight_codes(weight, bias, x.scale, self._bits)
        sums = torch.zeros(len(weight), dtype=torch.float64)
        if bias is not None:
            sums = torch.round(bias / (x.scale * scale))
        largest = codes.double().flatten(1).abs().sum(1) * 255 + sums.abs()
        if bool((largest >= 2.0**31).any()):
            raise ValueError(f"{step.name}: its sums do not fit into int32")
        return {
            "weight": codes,
            "weight_scale": scale,
            "bias": sums.int(),
            "rescale": Rescale.of(x.scale * scale / y.scale),
            "input_zero": x.zero,
        }


def weight_codes(
    weight: Tensor, bias: Tensor | None, input_scale: float, bits: int
) -> tuple[Tensor, Tensor]:
    """int8 codes of weights ``(K, ...)``, float64, and their scales ``(K,)``."""
    largest = 2 ** (bits - 1) - 1
    scale = weight.flatten(1).abs().amax(1) / largest
    if bias is not None:
        scale = torch.maximum(scale, bias.abs() / (input_scale * 2.0**_BIAS_BITS))
    scale = torch.where(scale > 0, scale, 1.0).float().double()
    over = scale.view(-1, *[1] * (weight.ndim - 1))
    codes = torch.round(weight / over).clamp(-largest, largest)
    return codes.to(torch.int8), scale


def refuse_unsupported(program: Program) -> None:
    """Raise ValueError naming every step that has no integer form."""
    unknown = {
        f"{step.name} ({step.call})": None
        for step in program.steps
        if step.call not in _MAKERS
    }
    if unknown:
        raise ValueError(
            f"{program.name} cannot be exported as integers: {', '.join(unknown)}; there "
            f"are integer forms of {', '.join(sorted(_MAKERS))}"
        )


def _convolution(make: Lowering, step: Step) -> Operation:
    given = make.arguments(step)
    weights = make.weights(step)
    padding, dilation = given["padding"], _pair(given["dilation"])
    kernel = weights["weight"].shape[2:]
    if isinstance(padding, str):
        total = [
            d * (k - 1) if padding == "same" else 0
            for k, d in zip(kernel, dilation, strict=True)
        ]
        ends = [n // 2 for n in total] + [n - n // 2 for n in total]
    else:
        ends = [*_pair(padding), *_pair(padding)]
    return Convolution(
        name=step.name,
        inputs=step.reads[:1],
        **make.clamp(step),
        **weights,
        stride=_pair(given["stride"]),
        padding=(ends[0], ends[1], ends[2], ends[3]),
        dilation=dilation,
        groups=given["groups"],
    )


def _linear(make: Lowering, step: Step) -> Operation:
    if len(make.read(step).shape) != 1:
        raise ValueError(
            f"{step.name}: must read one vector an example, got {make.read(step).shape}"
        )
    return Linear(
        name=step.name, inputs=step.reads[:1], **make.clamp(step), **make.weights(step)
    )


def _two(make: Lowering, step: Step) -> tuple[Quantities, Quantities]:
    """The two values that a step reads, which must be activations."""
    if len(step.reads) != 2:
        raise ValueError(
            f"{step.name} ({step.call}): must be of two activations, not of a constant"
        )
    return make.read(step, 0), make.read(step, 1)


def _add(make: Lowering, step: Step) -> Operation:
    a, b = _two(make, step)
    if a.shape != b.shape or make.arguments(step).get("alpha", 1) != 1:
        raise ValueError(
            f"{step.name} (add): must be of equal shapes and without alpha, got {a.shape} "
            f"and {b.shape}"
        )
    factors = torch.tensor([a.scale, b.scale], dtype=torch.float64)
    return Add(
        name=step.name,
        inputs=step.reads,
        **make.clamp(step),
        zeros=(a.zero, b.zero),
        rescale=Rescale.shared(factors / make.written(step).scale),
    )


def _multiply(make: Lowering, step: Step) -> Operation:
    a, b = _two(make, step)
    reads = step.reads
    if torch.Size(a.shape).numel() < torch.Size(b.shape).numel():
        a, b, reads = b, a, reads[::-1]
    whole = a.shape == b.shape
    if not whole and b.shape != (a.shape[0], *[1] * (len(a.shape) - 1)):
        raise ValueError(
            f"{step.name} (mul): must be of equal shapes or with one number a channel, "
            f"got {a.shape} and {b.shape}"
        )
    factor = a.scale * b.scale / make.written(step).scale
    return Multiply(
        name=step.name,
        inputs=reads,
        **make.clamp(step),
        zeros=(a.zero, b.zero),
        rescale=Rescale.of(torch.tensor([factor], dtype=torch.float64)),
    )


def _average(
    make: Lowering,
    step: Step,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    keeps_pixels: bool = True,
) -> Operation:
    x = make.read(step)
    factor = x.scale / (kernel[0] * kernel[1] * make.written(step).scale)
    return Average(
        name=step.name,
        inputs=step.reads,
        **make.clamp(step),
        rescale=Rescale.of(torch.tensor([factor], dtype=torch.float64)),
        input_zero=x.zero,
        kernel=kernel,
        stride=stride,
        keeps_pixels=keeps_pixels,
    )


def _mean(make: Lowering, step: Step) -> Operation:
    given, x = make.arguments(step), make.read(step)
    axes = sorted(axis % (len(x.shape) + 1) for axis in given["dim"] or ())
    if axes != [2, 3] or len(x.shape) != 3:
        raise ValueError(
            f"{step.name} (mean): must be over height and width, got {axes}"
        )
    image = (x.shape[1], x.shape[2])
    return _average(make, step, image, image, bool(given["keepdim"]))


def _adaptive(make: Lowering, step: Step) -> Operation:
    x, wanted = make.read(step), _pair(make.arguments(step)["output_size"])
    image = x.shape[-2:]
    if image[0] % wanted[0] or image[1] % wanted[1]:
        raise ValueError(
            f"{step.name} (adaptive_avg_pool2d): {image[0]}x{image[1]} pixels are no "
            f"multiple of {wanted[0]}x{wanted[1]}"
        )
    kernel = (image[0] // wanted[0], image[1] // wanted[1])
    return _average(make, step, kernel, kernel)


def _average_pool(make: Lowering, step: Step) -> Operation:
    given = make.arguments(step)
    if any(given["padding"]) or given["ceil_mode"] or given["divisor_override"]:
        raise ValueError(
            f"{step.name} (avg_pool2d): must be without padding, ceil_mode and divisor"
        )
    kernel = _pair(given["kernel_size"])
    return _average(make, step, kernel, _pair(given["stride"] or kernel))


def _max_pool(make: Lowering, step: Step) -> Operation:
    given, x, y = make.arguments(step), make.read(step), make.written(step)
    kernel = _pair(given["kernel_size"])
    stride = _pair(given["stride"] or kernel)
    padding, dilation = _pair(given["padding"]), _pair(given["dilation"])
    # With ceil_mode the last window ends behind the image: there is that much border.
    behind = [
        max((out - 1) * s + d * (k - 1) + 1 - size - p, 0)
        for out, s, d, k, size, p in zip(
            y.shape[1:], stride, dilation, kernel, x.shape[1:], padding, strict=True
        )
    ]
    return MaxPool(
        name=step.name,
        inputs=step.reads,
        kernel=kernel,
        stride=stride,
        padding=(padding[0], padding[1], behind[0], behind[1]),
        dilation=dilation,
    )


def _concatenate(make: Lowering, step: Step) -> Operation:
    axis = make.arguments(step)["dim"] % (len(make.written(step).shape) + 1)
    if axis == 0:
        raise ValueError(f"{step.name} (cat): must not be of the examples of a batch")
    return Concatenate(name=step.name, inputs=step.reads, axis=axis)


def _pad(make: Lowering, step: Step) -> Operation:
    given, y = make.arguments(step), make.written(step)
    if given.get("mode", "constant") != "constant" or given.get("value") not in (
        None,
        0,
    ):
        raise ValueError(f"{step.name} (pad): must be with zeros")
    pairs = [*given["pad"], *[0] * (2 * len(y.shape) - len(given["pad"]))]
    if any(n < 0 for n in pairs):
        raise ValueError(f"{step.name} (pad): must not crop")
    return Pad(
        name=step.name,
        inputs=step.reads,
        before=tuple(reversed(pairs[::2])),
        behind=tuple(reversed(pairs[1::2])),
        zero=y.zero,
    )


def _slice(make: Lowering, step: Step) -> Operation:
    given, shape = make.arguments(step), make.read(step).shape
    axis = given["dim"] - 1
    if axis < 0:
        raise ValueError(f"{step.name} (slice): must not be of the examples of a batch")
    kept = slice(given["start"], given["end"], given["step"]).indices(shape[axis])
    ends = [(0, size, 1) for size in shape]
    ends[axis] = kept
    start, stop, each = zip(*ends, strict=True)
    return Slice(name=step.name, inputs=step.reads, start=start, stop=stop, step=each)


def _reshape(make: Lowering, step: Step) -> Operation:
    return Reshape(
        name=step.name, inputs=step.reads[:1], shape=make.written(step).shape
    )


def _lookup(make: Lowering, step: Step) -> Operation:
    x, y = make.read(step), make.written(step)
    codes = torch.arange(-128, 128, dtype=torch.float64)
    values = (codes - x.zero) * x.scale
    others = fixed_arguments(step)
    found = step.node.target(values, *others, **dict(step.node.kwargs))  # pyright: ignore[reportCallIssue]
    table = as_codes(found, y.scale, y.zero)
    return Lookup(
        name=step.name, inputs=step.reads, table=table, function=step.call.rstrip("_")
    )


def fixed_arguments(step: Step) -> tuple[Any, ...]:
    """Arguments of a call behind the value that it reads."""
    return tuple(step.node.args[1:])


def _pair(sizes: Any) -> tuple[int, int]:
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return (sizes[0], sizes[-1])


#: How each call of the graph becomes an operation.
_MAKERS: dict[str, Callable[[Lowering, Step], Operation]] = {
    "conv2d": _convolution,
    "linear": _linear,
    "add": _add,
    "add_": _add,
    "mul": _multiply,
    "mean": _mean,
    "adaptive_avg_pool2d": _adaptive,
    "avg_pool2d": _average_pool,
    "max_pool2d": _max_pool,
    "cat": _concatenate,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "slice": _slice,
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(
        (
            "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_min",
            "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "sigmoid", "silu",
            "silu_", "tanh", "gelu", "leaky_relu", "elu",
        ),
        _lookup,
    ),
}  # fmt: skip
