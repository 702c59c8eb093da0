"""Lists of a layer's weight, cached from call to call."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor

from elision.common.forking import Lock
from elision.engines.native import library
from elision.products import Conv2dGeometry

__all__ = ["LayerLists", "above"]

_Key = tuple[Conv2dGeometry, bool]  # a shape, and whether products are of halves


class LayerLists:
    """Lists of one layer's weight for the most recent batch sizes."""

    BATCHES = 2  # the usual one and the last of an epoch

    def __init__(self) -> None:
        self.lock = Lock(self._drop)
        self.weights: OrderedDict[_Key, library.Weights] = OrderedDict()
        # A reference to each mask keeps its address unique while its lists exist.
        self.masks: dict[_Key, tuple[Tensor, int]] = {}

    @contextlib.contextmanager
    def made(
        self,
        geometry: Conv2dGeometry,
        weight: Tensor,
        mask: Tensor | None,
        level: Tensor | None,
        halves: bool,
        **products: bool,
    ) -> Iterator[library.Weights]:
        """Context manager: builds the lists for the named products, releases them on exit.

        A mask's lists are built once, as long as it does not change. One thread at a
        time holds them.
        """
        key = (geometry, halves)
        with self.lock:
            weights = self._weights_for(key)
            if mask is None:
                weights.compress(weight, above(level), **products)
            else:
                self._follow(mask, key)
                weights.refresh(weight)
            try:
                yield weights
            finally:
                weights.release()

    def _drop(self) -> None:
        """In a forked process: leave lists alone that another thread was making."""
        for weights in self.weights.values():
            weights.abandon()
        self.weights.clear()
        self.masks.clear()

    def _weights_for(self, key: _Key) -> library.Weights:
        """Lists for this shape; evicts the least recently used."""
        weights = self.weights.pop(key, None)
        if weights is None:
            geometry, halves = key
            weights = library.Weights(geometry, halves=halves)
        self.weights[key] = weights
        while len(self.weights) > self.BATCHES:
            old, _ = self.weights.popitem(last=False)
            self.masks.pop(old, None)
        return weights

    def _follow(self, mask: Tensor, key: _Key) -> None:
        """Take the places of a mask, unless its lists are up to date."""
        held, version = self.masks.get(key, (None, -1))
        same = held is not None and held.data_ptr() == mask.data_ptr()
        if not same or version != mask._version:
            self.weights[key].follow(mask)
            self.masks[key] = (mask, mask._version)


def above(level: Tensor | None) -> float:
    """Threshold that keeps magnitudes of at least ``level``; zeros are never kept."""
    if level is None:
        return 0.0
    return torch.nextafter(level, torch.zeros_like(level)).item()
