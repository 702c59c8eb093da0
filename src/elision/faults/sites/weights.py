"""Faults in stored weights: their values, scales, places."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from elision.faults.draw import Hits, Reach, places_of
from elision.faults.fault import Fault
from elision.faults.sites.base import Site
from elision.faults.stored import Stored, stored_as
from elision.layers.reach import elidable_layers

__all__ = ["StoredWeights", "weights_of"]


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of a model's layers, by the name of the layer; a shared one once.

    Example:
        >>> list(weights_of(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
        ['0']
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, layer in elidable_layers(model).items():
        weight = layer.weight
        if isinstance(weight, nn.Parameter) and id(weight) not in seen:
            seen.add(id(weight))
            found[name] = weight
    return found


class StoredWeights(Site):
    """The weights of the layers that a fault selects.

    Args:
        model: any module.
        fault: of site ``weight``, ``scale``, ``index`` or ``bitmap``.

    Raises:
        ValueError: the model has no such layer, or the format no such part.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> site = StoredWeights(model, Fault(format="int8"))
        >>> hits = site.reach.drawn(torch.Generator(), 1)
        >>> before = model.weight.detach().clone()
        >>> with site.entered(), site.struck([hits]):
        ...     changed = int((model.weight != before).sum())
        >>> changed > 0, bool((model.weight == before).all())
        (True, True)
    """

    by_sample = False

    def __init__(self, model: nn.Module, fault: Fault) -> None:
        self.fault = fault
        known = weights_of(model)
        self._weights = {n: w for n, w in known.items() if fault.selects(n)}
        if not self._weights:
            raise ValueError(
                f"Fault(layers={fault.layers!r}): the model has no such layer; it has "
                f"{', '.join(known) or 'none'}"
            )
        self._before = {n: w.detach().clone() for n, w in self._weights.items()}
        self._held: dict[str, Stored] = {
            n: stored_as(w.detach(), fault.format, fault.storage)
            for n, w in self._weights.items()
        }
        self._golden = {n: held.values() for n, held in self._held.items()}
        self.reach = Reach(fault, places_of(self._held, fault))
        self.surviving = sum(int(v.count_nonzero()) for v in self._golden.values())

    @contextmanager
    def entered(self) -> Iterator[None]:
        """See the base."""
        self._write(self._golden)
        try:
            yield
        finally:
            self._write(self._before)

    @contextmanager
    def struck(self, draws: Sequence[list[Hits]]) -> Iterator[None]:
        """See the base; ``draws`` holds one list."""
        (hits,) = draws
        changed = dict(self._held)
        for hit in hits:
            name, part = hit.place.name, hit.place.part
            changed[name] = changed[name].changed(
                part, hit.index, hit.bit, self.fault.action
            )
        names = {hit.place.name for hit in hits}
        self._write({name: changed[name].values() for name in names})
        try:
            yield
        finally:
            self._write({name: self._golden[name] for name in names})

    def _write(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self._weights[name].copy_(value)
