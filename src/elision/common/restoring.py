"""Undo what trial passes do to a model's buffers and to the random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["Buffers", "restored"]


class Buffers:
    """Snapshot of a model's buffers: running statistics, a recipe's state."""

    def __init__(self, model: nn.Module) -> None:
        self._before = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Give every buffer its tensor and its values of the snapshot again.

        A buffer that did not change is not written, so its version stays; one that did
        is written in place, since an optimiser may train the very tensor (DST's
        thresholds).
        """
        for module, name, buffer, values in self._before:
            module._buffers[name] = buffer
            if not buffer.is_meta and not torch.equal(buffer, values):
                buffer.copy_(values)


@contextmanager
def restored(model: nn.Module, *, random_state: bool = False) -> Iterator[None]:
    """Undo what the block does to the buffers of ``model``, also when it raises.

    Args:
        model: the model whose buffers are put back.
        random_state: whether the CPU's random state is put back, too.
    """
    before = Buffers(model)
    with torch.random.fork_rng(devices=[], enabled=random_state):
        try:
            yield
        finally:
            before.put_back()
