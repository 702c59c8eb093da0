"""Offloaded tensors, fetched with a lookahead of one.

The backward pass reads tensors in about the reverse of the order in which the forward
pass offloaded them. With a lookahead, fetching a tensor starts the fetch of the one that
was offloaded before it (vDNN, Rhu et al., MICRO 2016): on the CPU a thread reads the
file, on an accelerator a side stream copies.
"""

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

from elision.memory.codecs.scratch import Piece

__all__ = ["Away", "InFile", "InHostMemory"]

_sent = threading.local()


class Away:
    """Offloaded values.

    Args:
        ahead: whether fetching these values starts the fetch of those that the same
            thread offloaded before them.
    """

    def __init__(self, ahead: bool) -> None:
        last = getattr(_sent, "last", None)
        self._before: Callable[[], Away | None] = last if ahead and last else _nothing
        self._arrival: Callable[[], torch.Tensor] | None = None
        _sent.last = weakref.ref(self)

    def bring(self) -> torch.Tensor:
        """The values, ``(numel,)``; may be called again."""
        arrival, self._arrival = self._arrival or self.start(), None
        before = self._before()
        if before is not None and before._arrival is None:
            before._arrival = before.start()
        return arrival()

    def start(self) -> Callable[[], torch.Tensor]:
        """Start the fetch; the function returned waits for the values."""
        raise NotImplementedError


def _nothing() -> None:
    """None: in place of a weak reference, where there is nothing to fetch first."""


class InFile(Away):
    """Values in a scratch file, which are freed with the last reference to them.

    Raises:
        OSError: they cannot be written.
    """

    def __init__(self, values: torch.Tensor, directory: str, ahead: bool) -> None:
        self._count, self._dtype = values.numel(), values.dtype
        self._piece = Piece(_bytes_of(values), directory)
        super().__init__(ahead)

    def start(self) -> Callable[[], torch.Tensor]:
        """Fill a new tensor in the reading thread."""
        values = torch.empty(self._count, dtype=self._dtype, device="cpu")
        done = _reader().submit(self._piece.read, _bytes_of(values))

        def arrival() -> torch.Tensor:
            done.result()
            return values

        return arrival


class InHostMemory(Away):
    """A device's values in pinned host memory.

    The copies run on streams of their own beside the work of the current stream.
    """

    def __init__(self, values: torch.Tensor, ahead: bool) -> None:
        self._device = values.device
        side = _stream(values.device)
        side.wait_stream(torch.accelerator.current_stream(values.device))
        self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        with side:
            self._host.copy_(values, non_blocking=True)
            values.record_stream(side)
        super().__init__(ahead)

    def start(self) -> Callable[[], torch.Tensor]:
        """Copy back on the side stream, after the copy out."""
        side = _stream(self._device)
        with side:
            values = self._host.to(self._device, non_blocking=True)
            done = side.record_event()

        def arrival() -> torch.Tensor:
            current = torch.accelerator.current_stream(self._device)
            current.wait_event(done)
            values.record_stream(current)
            return values

        return arrival


def _bytes_of(values: torch.Tensor) -> memoryview:
    """The memory of a flat tensor."""
    return values.view(torch.uint8).numpy().data


@cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="elision-offload")


os.register_at_fork(after_in_child=_reader.cache_clear)  # its thread is not copied


@cache
def _stream(device: torch.device) -> torch.Stream:
    return torch.Stream(device)
