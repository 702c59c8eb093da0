"""Offloading: the tensor leaves the device's memory and comes back when needed."""

import errno
import os
import tempfile
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from elision.memory.base import Codec, Guarantee, Packed
from elision.memory.layout import Layout, flat
from elision.memory.roles import SMOOTH_ROLES, Slot

__all__ = ["Offload", "OffloadError"]


class OffloadError(RuntimeError):
    """A tensor could not be written where it was to go."""


@dataclass(frozen=True)
class Offload(Codec):
    """Exact: on the CPU into a file, on an accelerator into pinned host memory (vDNN).

    On the CPU every tensor becomes an unnamed temporary file, whose space is freed with
    the graph or the process, whichever ends first. The operating system writes it out
    when memory is short. On an accelerator the copy runs on a stream of its own beside
    the forward pass; the copy back is not prefetched.

    Attributes:
        directory: where the files go; None: the system's temporary directory, which on
            some systems lies in memory itself.
    """

    directory: str | None = None
    name = "offload"
    guarantee = Guarantee.EXACT
    roles = SMOOTH_ROLES

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Send the tensor away.

        Raises:
            OffloadError: the file cannot be written (a full disk). The saver puts back
                what the forward pass did to buffers; nothing else has been touched.
        """
        values = flat(tensor)
        if tensor.device.type != "cpu":
            return Packed((), Layout.of(tensor), _to_host(values))
        where = self.directory or tempfile.gettempdir()
        data = _bytes_of(values)
        try:
            file = _SpillFile(where)
            file.write(data)
        except OSError as error:
            full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
            raise OffloadError(
                f"offloading {len(data)} bytes of {slot.consumer} in module "
                f"{slot.module!r} to {where} failed{full}: {error}; parameters, "
                "buffers and optimizer are as they were before this forward pass: free "
                "some space or give Offload another directory, and repeat the step"
            ) from error
        return Packed((), Layout.of(tensor), file)

    def unpack(self, packed: Packed) -> torch.Tensor:
        """Fetch the tensor."""
        if packed.layout.device.type != "cpu":
            return packed.layout.view(_to_device(packed.meta, packed.layout.device))
        values = torch.empty(packed.layout.numel, dtype=packed.layout.dtype)
        packed.meta.read(_bytes_of(values))
        return packed.layout.view(values)


class _SpillFile:
    """A file without a name, which is gone when nobody refers to it any more."""

    def __init__(self, directory: str) -> None:
        self._descriptor, path = tempfile.mkstemp(prefix="elision-", dir=directory)
        weakref.finalize(self, os.close, self._descriptor)
        os.unlink(path)

    def write(self, data: memoryview) -> None:
        """Write all of ``data``."""
        while data:
            data = data[os.write(self._descriptor, data) :]

    def read(self, target: memoryview) -> None:
        """Fill ``target`` from the beginning of the file."""
        at = 0
        while at < len(target):
            at += os.preadv(self._descriptor, [target[at:]], at)


def _bytes_of(values: torch.Tensor) -> memoryview:
    """The memory of a flat tensor."""
    return values.view(torch.uint8).numpy().data


def _to_host(values: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Copy to pinned memory beside the current stream; the event says when done."""
    side = torch.Stream(values.device)
    side.wait_stream(torch.accelerator.current_stream(values.device))
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    with side:
        host.copy_(values, non_blocking=True)
        values.record_stream(side)
        done = side.record_event()
    return host, done


def _to_device(sent: tuple[torch.Tensor, Any], device: torch.device) -> torch.Tensor:
    """Copy back on the current stream, once the copy out is done."""
    host, done = sent
    torch.accelerator.current_stream(device).wait_event(done)
    return host.to(device, non_blocking=True)
