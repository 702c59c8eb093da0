"""Range restriction: activations clamped to what clean runs showed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.restoring import restored
from elision.faults.outputs import outputs_shown
from elision.layers.reach import elidable_layers

__all__ = ["Ranges", "learned_ranges", "restricted"]


@dataclass
class Ranges:
    """Bounds of the outputs of layers, and how often they were left.

    Attributes:
        bounds: lowest and highest value of each layer.
        left: values outside so far, by layer; NaN among them.

    Example:
        >>> ranges = Ranges({"fc": (0.0, 6.0)})
        >>> ranges.kept("fc", torch.tensor([7.0, -1.0, torch.nan, 3.0]))
        tensor([6., 0., 0., 3.])
        >>> ranges.left
        {'fc': 3}
    """

    bounds: Mapping[str, tuple[float, float]]
    left: dict[str, int] = field(default_factory=dict)
    _told: int = 0

    @property
    def raised(self) -> bool:
        """Whether a value was outside since this was last asked (an alarm)."""
        total = sum(self.left.values())
        told, self._told = self._told, total
        return total > told

    def kept(self, layer: str, output: Tensor) -> Tensor:
        """The values within the layer's bounds; NaN becomes 0, or the bound next to it."""
        low, high = self.bounds[layer]
        inside = (output >= low) & (output <= high)
        outside = output.numel() - int(inside.sum())
        if not outside:
            return output
        self.left[layer] = self.left.get(layer, 0) + outside
        zero = min(max(0.0, low), high)
        return output.nan_to_num(nan=zero, posinf=high, neginf=low).clamp(low, high)


def learned_ranges(
    model: nn.Module, inputs: Tensor, *, margin: float = 0.0, batch: int = 256
) -> Ranges:
    """The bounds of every layer's output on clean examples.

    Args:
        model: any module; it runs in evaluation mode.
        inputs: examples, ``(N, ...)``.
        margin: by which share of its width an interval is widened on each side.
        batch: examples of one pass.

    Source: Chen, Li and Pattabiraman, A Low-cost Fault Corrector for Deep Neural Networks
    through Range Restriction (Ranger), DSN 2021; there the bounds are of activation
    functions, here of the outputs of layers with products.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> learned_ranges(model, torch.tensor([[1.0], [5.0]])).bounds
        {'': (1.0, 5.0)}
    """
    found: dict[str, tuple[float, float]] = {}

    def see(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            low, high = (float(end) for end in output.aminmax())
            before = found.get(name, (low, high))
            found[name] = min(low, before[0]), max(high, before[1])

    was_training = model.training
    model.eval()
    try:
        with (
            restored(model, random_state=True),
            torch.no_grad(),
            outputs_shown(elidable_layers(model), see),
        ):
            for part in inputs.split(batch):
                model(part)
    finally:
        model.train(was_training)
    wide = {
        name: (low - margin * (high - low), high + margin * (high - low))
        for name, (low, high) in found.items()
    }
    return Ranges(wide)


@contextmanager
def restricted(model: nn.Module, ranges: Ranges) -> Iterator[Ranges]:
    """Clamp the outputs of a model's layers in the context.

    Args:
        model: the one whose ranges were learned.
        ranges: of its layers; others are left alone.

    Yields:
        The ranges, which count what was outside.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> with restricted(model, Ranges({"": (0.0, 2.0)})) as ranges:
        ...     model(torch.tensor([[9.0]])).item(), ranges.raised
        (2.0, True)
    """

    def see(name: str, output: Any) -> Any:
        if name in ranges.bounds and isinstance(output, Tensor):
            return ranges.kept(name, output)
        return None

    with outputs_shown(elidable_layers(model), see):
        yield ranges
