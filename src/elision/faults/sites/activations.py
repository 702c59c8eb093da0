"""Faults in activations: the outputs of layers, an inference at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.restoring import restored
from elision.faults.draw import Hits, Place, Reach
from elision.faults.fault import Fault
from elision.faults.outputs import See, outputs_shown
from elision.faults.sites.base import Site
from elision.faults.stored import stored_as
from elision.formats import Scaled, format_named
from elision.layers.reach import elidable_layers

__all__ = ["Activations"]


class Activations(Site):
    """The outputs of the layers that a fault selects, as they go to the next.

    Each example of a batch is one inference with faults of its own. In a format with
    scales, the scale is that of the example's tensor. A layer that is called again in one
    pass has the place ``name#2`` and so on.

    Args:
        model: any module.
        fault: of site ``activation``.
        example: the argument of the model, with the examples along dimension 0.

    Raises:
        ValueError: the model has no such layer.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> site = Activations(model, Fault(site="activation"), torch.ones(3, 2))
        >>> site.reach.size
        64
    """

    by_sample = True

    def __init__(self, model: nn.Module, fault: Fault, example: Tensor) -> None:
        self.fault, self._model = fault, model
        layers = elidable_layers(model)
        self._layers = {n: m for n, m in layers.items() if fault.selects(n)}
        self._draws: Sequence[list[Hits]] = ()
        self._calls: Counter[str] = Counter()
        places: list[Place] = []
        self.surviving = 0

        def measure(name: str, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                width = stored_as(output, fault.format).parts["values"].bits
                places.append(Place(self._place(name), "values", output.numel(), width))
                self.surviving += int(output.count_nonzero())

        with (
            restored(model, random_state=True),
            self._shown(measure),
            torch.no_grad(),
        ):
            model(example[:1])
        if not places:
            raise ValueError(
                f"Fault(site='activation', layers={fault.layers!r}): no such layer runs; "
                f"the model has {', '.join(layers) or 'none'}"
            )
        self.reach = Reach(fault, places)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """See the base."""
        with self._shown(self._store):
            yield

    @contextmanager
    def struck(self, draws: Sequence[list[Hits]]) -> Iterator[None]:
        """See the base; ``draws`` holds a list for each example."""
        self._draws = draws
        self._calls.clear()
        try:
            yield
        finally:
            self._draws = ()
            self._calls.clear()

    @contextmanager
    def _shown(self, see: See) -> Iterator[None]:
        """Outputs of the layers, calls counted anew in every pass."""
        begin = self._model.register_forward_pre_hook(lambda *_: self._calls.clear())
        try:
            with outputs_shown(self._layers, see):
                yield
        finally:
            begin.remove()

    def _place(self, name: str) -> str:
        self._calls[name] += 1
        again = self._calls[name]
        return name if again == 1 else f"{name}#{again}"

    def _store(self, name: str, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        place = self._place(name)
        size = output.numel() // max(len(output), 1)
        found = [
            (s * size + hit.index, hit.bit)
            for s, hits in enumerate(self._draws)
            for hit in hits
            if hit.place.name == place
        ]
        if not found and self.fault.format is None:
            return output
        index = torch.cat([i for i, _ in found]) if found else torch.zeros(0).long()
        bit = torch.cat([b for _, b in found]) if found else torch.zeros(0).long()
        rows = self._apart(output)
        each = [
            self._changed(part, index - begin, bit, part.numel())
            for part, begin in rows
        ]
        return torch.cat(each) if len(each) != 1 else each[0]

    def _apart(self, output: Tensor) -> list[tuple[Tensor, int]]:
        """The tensors that are stored by themselves, and where each begins."""
        name = self.fault.format
        if name is None or not isinstance(format_named(name), Scaled):
            return [(output, 0)]
        size = output.numel() // max(len(output), 1)
        return [(output[s : s + 1], s * size) for s in range(len(output))]

    def _changed(self, x: Tensor, index: Tensor, bit: Tensor, size: int) -> Tensor:
        here = (index >= 0) & (index < size)
        held = stored_as(x, self.fault.format)
        held = held.changed("values", index[here], bit[here], self.fault.action)
        return held.values()
