"""The lists of one layer's weight, kept from call to call."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor

from elision.engines.native import library
from elision.products import Conv2dGeometry

__all__ = ["LayerLists", "above"]

_Asked = tuple[Conv2dGeometry, bool]  # a shape, and whether products are of halves


class LayerLists:
    """The lists of one layer's weight, for the batch sizes seen last."""

    BATCHES = 2  # the usual one and the last of an epoch

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.weights: OrderedDict[_Asked, library.Weights] = OrderedDict()
        # A mask is held beside the lists made from it, so that its address names it.
        self.masks: dict[_Asked, tuple[Tensor, int]] = {}

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
        """While the weight's lists are there, for some products; then they make room.

        The lists of a mask that stands are made once. One thread at a time has them.
        """
        asked = (geometry, halves)
        with self.lock:
            weights = self._weights_for(asked)
            if mask is None:
                weights.compress(weight, above(level), **products)
            else:
                self._follow(mask, asked)
                weights.refresh(weight)
            try:
                yield weights
            finally:
                weights.release()

    def _weights_for(self, asked: _Asked) -> library.Weights:
        """The room for lists of this kind; the one not asked for longest is given up."""
        weights = self.weights.pop(asked, None)
        if weights is None:
            geometry, halves = asked
            weights = library.Weights(geometry, halves=halves)
        self.weights[asked] = weights
        while len(self.weights) > self.BATCHES:
            old, _ = self.weights.popitem(last=False)
            self.masks.pop(old, None)
        return weights

    def _follow(self, mask: Tensor, asked: _Asked) -> None:
        """Take the places of a mask, unless it is the one that was followed last."""
        held, version = self.masks.get(asked, (None, -1))
        same = held is not None and held.data_ptr() == mask.data_ptr()
        if not same or version != mask._version:
            self.weights[asked].follow(mask)
            self.masks[asked] = (mask, mask._version)


def above(level: Tensor | None) -> float:
    """The threshold that keeps what reaches ``level``; zeros are left out always."""
    if level is None:
        return 0.0
    return torch.nextafter(level, torch.zeros_like(level)).item()
