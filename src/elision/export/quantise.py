"""Post-training quantisation: scales from calibration data, then the integer graph."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from elision.common.checks import integer
from elision.export.graph import QuantisedGraph, Value
from elision.export.lower import KEEP_SCALE, Lowering, Quantities, refuse_unsupported
from elision.export.operations.base import HIGHEST, LOWEST
from elision.export.program import Program, traced
from elision.layers.reach import elided_layers
from elision.precision.folding import folded

__all__ = ["fake_quantised", "quantised"]

#: Examples that are run at once in calibration (own choice).
_BATCH = 64


def quantised(
    model: nn.Module, calibration: Tensor, *, bits: int = 8, name: str | None = None
) -> QuantisedGraph:
    """A plain network as integers: symmetric weights by channel, affine activations.

    Batch normalisation is folded into the layers before it. A value's scale and zero
    point are ``s = (max − min)/255`` and ``z = −128 − round(min/s)``, with the extremes
    of the calibration data and zero, after the activation function. Values that are only
    copied (concatenated, padded, sliced, reshaped, their maximum taken) share theirs.

    Args:
        model: a plain module, such as :func:`finalize` returns; it stays as it is.
        calibration: inputs, ``(N, *shape)``, float: of the training data, for those of the
            test data would flatter the result.
        bits: of the weights, 2 to 8; activations have 8.
        name: of the graph; default: that of the model's class.

    Raises:
        ValueError: the model is still elided, has operations without an integer form (all
            are named), or cannot be traced; no calibration data, or not finite ones.

    Source: Jacob et al., CVPR 2018; scales by output channel as in Krishnamoorthi,
    Quantizing deep convolutional networks for efficient inference, 2018.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        >>> graph = quantised(layers, torch.randn(8, 1, 6, 6))
        >>> graph.operations[0].weight.dtype, graph.values["0"].zero
        (torch.int8, -128)
    """
    return _made(model, calibration, bits, name)[0]


def fake_quantised(
    model: nn.Module, calibration: Tensor, *, bits: int = 8, name: str | None = None
) -> tuple[QuantisedGraph, "FakeQuantised"]:
    """The graph of :func:`quantised`, and the model in floating point that it stands for."""
    graph, program = _made(model, calibration, bits, name)
    return graph, FakeQuantised(graph, program)


class FakeQuantised:
    """The traced network in float64, its weights and every value rounded to the codes.

    An oracle of the integer graph that shares none of its arithmetic: torch's own
    operations on real numbers.

    Args:
        graph: scales, zero points and weights.
        program: the network that the graph was made of.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> graph, fake = fake_quantised(nn.Linear(4, 2), torch.ones(8, 4))
        >>> sorted(fake.values(torch.ones(1, 4)))
        ['input', 'linear']
    """

    def __init__(self, graph: QuantisedGraph, program: Program) -> None:
        self._graph, self._program = graph, program
        self._tensors = {name: t.double() for name, t in program.tensors.items()}
        operations = {o.name: o for o in graph.operations}
        for step in program.steps:
            if step.call not in ("conv2d", "linear"):
                continue
            operation: Any = operations[step.name]
            scale = operation.weight_scale
            over = scale.view(-1, *[1] * (operation.weight.ndim - 1))
            nodes = [n for n in step.node.all_input_nodes if n.name in self._tensors]
            self._tensors[nodes[0].name] = operation.weight.double() * over
            if len(nodes) > 1:
                read = graph.values[operation.inputs[0]]
                self._tensors[nodes[1].name] = operation.bias * (read.scale * scale)

    def values(self, inputs: Tensor) -> dict[str, Tensor]:
        """Codes of every value, as float64, by name."""
        found: dict[str, Tensor] = {}

        def after(name: str, value: Tensor) -> Tensor:
            own = self._graph.values[name]
            codes = (value / own.scale).round() + own.zero
            found[name] = codes.clamp(LOWEST, HIGHEST)
            return (found[name] - own.zero) * own.scale

        self._program.run(inputs.double(), after, self._tensors)
        return found


def _made(
    model: nn.Module, calibration: Tensor, bits: int, name: str | None
) -> tuple[QuantisedGraph, Program]:
    """Graph and program of a model."""
    integer("quantised", "bits", bits, "[2, 8]")
    if next(elided_layers(model), None) is not None:
        raise ValueError(
            "the model is still elided: call elision.export.finalize first"
        )
    if not len(calibration) or not bool(calibration.isfinite().all()):
        raise ValueError(
            f"calibration: must be one example or more, all finite; got "
            f"{tuple(calibration.shape)}"
        )
    program = traced(folded(model, calibration[:2]), calibration)
    refuse_unsupported(program)
    shapes = {"input": program.shape} | {s.name: s.shape for s in program.steps}
    quantities = {
        value: Quantities(shapes[value], *_scale_and_zero(low, high))
        for value, (low, high) in _shared(
            program, _ranges(program, calibration)
        ).items()
    }
    lowering = Lowering(program, quantities, bits)
    operations = tuple(lowering.operation(step) for step in program.steps)
    values = {n: Value(n, q.shape, q.scale, q.zero) for n, q in quantities.items()}
    graph = QuantisedGraph(
        name or program.name, operations, values, "input", program.output, bits
    )
    return graph, program


def _batches(inputs: Tensor) -> Iterator[Tensor]:
    yield from inputs.split(_BATCH)


def _ranges(program: Program, calibration: Tensor) -> dict[str, tuple[float, float]]:
    """Smallest and largest number of every value, zero included."""
    found: dict[str, tuple[float, float]] = {}

    def look(name: str, value: Tensor) -> None:
        low, high = (v.item() for v in value.aminmax())
        before = found.get(name, (0.0, 0.0))
        found[name] = min(low, before[0]), max(high, before[1])

    for batch in _batches(calibration):
        program.run(batch, look)
    return found


def _shared(
    program: Program, ranges: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Ranges in which values that are only copied have one."""
    group = {name: name for name in ranges}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for step in program.steps:
        if step.call in KEEP_SCALE:
            for read in step.reads:
                group[root(read)] = root(step.name)
    joint: dict[str, tuple[float, float]] = {}
    for name, (low, high) in ranges.items():
        before = joint.get(root(name), (0.0, 0.0))
        joint[root(name)] = min(low, before[0]), max(high, before[1])
    return {name: joint[root(name)] for name in ranges}


def _scale_and_zero(low: float, high: float) -> tuple[float, int]:
    """Scale, a float32, and zero point of a range that holds zero."""
    scale = float(np.float32((high - low) / (HIGHEST - LOWEST)))
    if not scale or math.isinf(scale):
        scale = 1.0
    return scale, min(max(LOWEST - round(low / scale), LOWEST), HIGHEST)
