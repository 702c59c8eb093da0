"""Choice by time between the kernel and torch's own function, for one layer's shape.

Both run a few steps forward and back once for each shape; the kernel is kept unless torch
is clearly faster. Choices live as long as the process.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from elision.common.forking import Lock
from elision.common.timing import fastest
from elision.nn.kernel import recurrence
from elision.nn.over_time import Plain

__all__ = ["Shape", "is_kernel_faster", "measured"]

#: Steps and timed calls of a trial (own choices): a tenth of a second at 512 units.
_STEPS, _TRIALS = 8, 3

#: Torch is taken where the kernel needs more than this share of its time (an own choice:
#: what times repeat to).
_MARGIN = 1.03

_LOCK = Lock()
_SECONDS: dict[tuple["Shape", int], dict[str, float]] = {}


class Shape(NamedTuple):
    """What the times of a layer in one direction depend on.

    Attributes:
        cell: ``"lstm"`` or ``"gru"``.
        inputs: features of a token.
        units: of the state.
        sequences: in the largest step.
        steps: number of time steps.
        back: whether a backward pass follows.
        dtype: of all tensors.

    Example:
        >>> Shape("gru", 3, 4, sequences=2, steps=50, back=True).short.steps
        8
    """

    cell: str
    inputs: int
    units: int
    sequences: int
    steps: int
    back: bool
    dtype: torch.dtype = torch.float32

    @property
    def short(self) -> "Shape":
        """The shape that a trial runs."""
        return self._replace(steps=min(self.steps, _STEPS))


def is_kernel_faster(layers: Sequence[Shape]) -> bool:
    """Whether the kernel computes such layers, by a trial of each at the first question."""
    times = [measured(shape) for shape in layers]
    return sum(t["native"] for t in times) <= _MARGIN * sum(t["torch"] for t in times)


def measured(shape: Shape) -> dict[str, float]:
    """Best seconds of ``"native"`` and ``"torch"`` on a few steps of such a layer."""
    key = shape.short, torch.get_num_threads()
    with _LOCK:
        if key not in _SECONDS:
            _SECONDS[key] = _trial(shape.short)
        return _SECONDS[key]


def _trial(shape: Shape) -> dict[str, float]:
    v = shape
    gates = (4 if v.cell == "lstm" else 3) * v.units

    def values(*size: int, scale: float = 1.0) -> Tensor:
        """Values between -scale and scale, without a random generator."""
        count = torch.arange(torch.Size(size).numel(), device="cpu")
        x = (count * 0.618).frac().float().mul_(2 * scale).sub_(scale)
        return x.view(size).to(v.dtype).requires_grad_(v.back)

    with torch.enable_grad(), torch.device("cpu"):
        x = values(v.steps, v.sequences, v.inputs)
        flat = [
            values(gates, v.inputs, scale=v.inputs**-0.5),
            values(gates, v.units, scale=v.units**-0.5),
            *(values(gates, scale=0.1), values(gates, scale=0.1)),
        ]
    zero = torch.zeros(1, v.sequences, v.units, dtype=v.dtype, device="cpu")
    parts = 2 if v.cell == "lstm" else 1
    states = (zero[0],) * parts

    def native() -> None:
        data, counts = x.flatten(0, 1), [v.sequences] * v.steps
        back(recurrence(v.cell, data, counts, states, Plain(*flat))[0])

    def own() -> None:
        options = (flat, True, 1, 0.0, True, False, False)
        if v.cell == "lstm":
            back(torch.lstm(x, (zero, zero), *options)[0])
        else:
            back(torch.gru(x, zero, *options)[0])

    def back(y: Tensor) -> None:
        if v.back:
            torch.autograd.grad(y, [x, *flat], torch.ones_like(y))

    with torch.set_grad_enabled(v.back), torch.autocast("cpu", enabled=False):
        return fastest({"torch": own, "native": native}, _TRIALS)
