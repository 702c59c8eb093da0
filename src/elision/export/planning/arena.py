"""The memory of a network on a small machine: arena, flash, multiply-accumulates."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from elision.common.checks import integer, one_of
from elision.export.planning.graph import Graph, buffers, peak_bytes
from elision.export.planning.offsets import greedy_by_size, place
from elision.export.planning.order import Order, best_order
from elision.export.planning.traced import Constants, traced

__all__ = ["BITS", "PLANNERS", "Arena", "PlannedTensor", "arena", "plan"]

#: Who plans. ``"least"``: the best order and the smallest arena found. ``"tflite-micro"``:
#: what TFLite Micro's interpreter does with the exported network: the operations in the
#: module's own order, offsets greedy by size, padding copied, 16 bytes aligned.
PLANNERS = ("least", "tflite-micro")

#: TFLite Micro's alignment of offsets.
_TFLM_ALIGNMENT = 16

#: Widths of values that a plan knows.
BITS = (4, 8, 16, 32)

#: Beside each output channel of an integer layer: bias (int32), multiplier (int32) and
#: shift (int8), as this library's C code stores them.
_BYTES_PER_CHANNEL = 4 + 4 + 1


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of a plan.

    Attributes:
        name: of the tensor: the node of ``torch.export`` that makes it.
        size_bytes: of the tensor.
        first, last: steps, inclusive, between which it is live.
        offset: bytes from the arena's start.

    Example:
        >>> tensor = PlannedTensor("relu", size_bytes=16, first=1, last=2, offset=32)
        >>> tensor.offset + tensor.size_bytes
        48
    """

    name: str
    size_bytes: int
    first: int
    last: int
    offset: int


@dataclass(frozen=True)
class Arena:
    """A network's memory: what it needs at least and where each tensor lies.

    Attributes:
        peak_bytes: the most bytes of activations that are live at one step.
        least_peak_bytes: no order of the operations has a lower peak.
        arena_bytes: of one static array that holds every tensor at its offset.
        order: names of the operations, first to last.
        tensors: activations, in the order in which they are made.
        flash_bytes: of the constants: weights, and for each output channel bias,
            multiplier and shift. Code is not counted.
        parameters: weights and biases.
        macs: multiply-accumulates of one inference; padded positions count.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten())
        >>> plan = arena(net.append(nn.Linear(256, 2)), torch.zeros(1, 1, 8, 8))
        >>> plan.peak_bytes, plan.flash_bytes, plan.macs
        (320, 602, 2816)
        >>> plan.rows()[0]
        {'tensor': 'input', 'bytes': 64, 'first': 0, 'last': 0, 'offset': 256}
    """

    peak_bytes: int
    least_peak_bytes: int
    arena_bytes: int
    order: tuple[str, ...]
    tensors: tuple[PlannedTensor, ...]
    flash_bytes: int
    parameters: int
    macs: int

    @property
    def optimal(self) -> bool:
        """True if no order of the operations and no placement needs a smaller arena."""
        return self.arena_bytes == self.least_peak_bytes

    def summary(self) -> dict[str, Any]:
        """The figures as plain values, without the tensors."""
        return {
            "peak_bytes": self.peak_bytes,
            "least_peak_bytes": self.least_peak_bytes,
            "arena_bytes": self.arena_bytes,
            "flash_bytes": self.flash_bytes,
            "parameters": self.parameters,
            "macs": self.macs,
            "order": list(self.order),
        }

    def text(self) -> str:
        """The figures in a line."""
        least = (
            "no order needs less"
            if self.optimal
            else f"at least {self.least_peak_bytes:,}"
        )
        return (
            f"arena: {self.arena_bytes:,} bytes ({least}); constants: "
            f"{self.flash_bytes:,} bytes; {self.macs:,} multiply-accumulates"
        )

    def rows(self) -> list[dict[str, Any]]:
        """The tensors as rows of a table, for :mod:`elision.report`."""
        return [
            {
                "tensor": t.name,
                "bytes": t.size_bytes,
                "first": t.first,
                "last": t.last,
                "offset": t.offset,
            }
            for t in self.tensors
        ]


def arena(
    model: nn.Module,
    example: Any,
    bits: int = 8,
    *,
    weight_bits: int | None = None,
    padding: str | None = None,
    in_place: bool = False,
    alignment: int | None = None,
    planner: str = "least",
) -> Arena:
    """The memory plan of a network in evaluation mode.

    Batch norms count as folded and rectifiers as part of the layer before them.

    Args:
        model: any module that ``torch.export`` reads.
        example: an input, or a tuple of inputs; a batch of one is what a small machine
            sees.
        bits: of an activation: 4, 8, 16 or 32; values of 4 bits are packed.
        weight_bits: of a weight; None: as ``bits``. Below 16 bits a layer has int32
            biases and a rescaling for each output channel.
        padding: ``"inside"`` the convolution, or ``"copied"`` first where TFLite's rule
            pads other sides, as LiteRT exports it; None: inside, or as the planner does.
        in_place: elementwise operations overwrite their input where nothing else reads
            it.
        alignment: offsets are multiples of so many bytes; None: 1, or as the planner
            does.
        planner: one of :data:`PLANNERS`.

    Raises:
        ValueError: a number is out of range, or ``torch.export`` cannot read the model.
    """
    one_of("arena", "bits", bits, BITS)
    if weight_bits is not None:
        one_of("arena", "weight_bits", weight_bits, BITS)
    one_of("arena", "planner", planner, PLANNERS)
    if padding is None:
        padding = "inside" if planner == "least" else "copied"
    found = traced(model, example, bits=bits, padding=padding)
    return plan(
        found.graph,
        found.constants,
        weight_bits=weight_bits or bits,
        in_place=in_place,
        alignment=alignment,
        planner=planner,
    )


def plan(
    graph: Graph,
    constants: tuple[Constants, ...] = (),
    *,
    weight_bits: int = 8,
    in_place: bool = False,
    alignment: int | None = None,
    planner: str = "least",
) -> Arena:
    """The memory plan of a graph; arguments of :func:`arena`.

    Example:
        >>> from elision.export.planning import Operation
        >>> step = Operation("layer", "linear", ("x",), ("y",))
        >>> plan(Graph({"x": 3, "y": 5}, (step,), ("x",), ("y",))).arena_bytes
        8
    """
    one_of("arena", "planner", planner, PLANNERS)
    if alignment is None:
        alignment = 1 if planner == "least" else _TFLM_ALIGNMENT
    integer("arena", "alignment", alignment, ">= 1")
    best = best_order(graph, in_place=in_place)
    if planner == "tflite-micro":
        own = tuple(range(len(graph.operations)))
        peak = peak_bytes(graph, own, in_place=in_place)
        best = Order(own, peak, best.least_bytes)
    lives = buffers(graph, best.indices, in_place=in_place)
    arrange = place if planner == "least" else greedy_by_size
    placed = arrange(lives, alignment=alignment)
    single = {b.names[0]: b for b in buffers(graph, best.indices)}
    tensors = [
        PlannedTensor(
            name, graph.sizes[name], single[name].first, single[name].last, at
        )
        for life, at in zip(lives, placed.offsets, strict=True)
        for name in life.names
    ]
    return Arena(
        peak_bytes=best.peak_bytes,
        least_peak_bytes=best.least_bytes,
        arena_bytes=placed.size_bytes,
        order=tuple(graph.operations[i].name for i in best.indices),
        tensors=tuple(sorted(tensors, key=lambda t: t.first)),
        flash_bytes=sum(flash_bytes(c, weight_bits) for c in constants),
        parameters=sum(c.weights + c.channels for c in constants),
        macs=graph.macs,
    )


def flash_bytes(constants: Constants, weight_bits: int) -> int:
    """Bytes of one operation's constants in flash.

    Example:
        >>> flash_bytes(Constants("fc", weights=100, channels=10), 8)
        190
        >>> flash_bytes(Constants("fc", weights=100, channels=10), 32)
        440
    """
    weights = -(-constants.weights * weight_bits // 8)
    each = _BYTES_PER_CHANNEL if weight_bits < 16 else weight_bits // 8
    return weights + constants.channels * each
