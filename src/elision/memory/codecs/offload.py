"""Offloading: the tensor leaves the device's memory and comes back when needed."""

import errno
import tempfile
from dataclasses import dataclass

import torch

from elision.memory.codecs.away import Away, InFile, InHostMemory
from elision.memory.saved.checksum import Checksum
from elision.memory.saved.codec import Codec, Guarantee, Packed
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import VALUE_ROLES, Slot

__all__ = ["Offload", "OffloadError"]


class OffloadError(RuntimeError):
    """A tensor could not be written where it was to go."""


@dataclass(frozen=True)
class Offload(Codec):
    """Exact: on the CPU into a file, on an accelerator into pinned host memory (vDNN).

    On the CPU all tensors lie in one unnamed temporary file, where the place of one is
    free for others once its graph is gone; the file ends with the last of them or with
    the process. The operating system writes it out when memory is short. On an
    accelerator the copies run on a stream of their own beside the work of the current
    one.

    Attributes:
        directory: where the files go; None: the system's temporary directory, which on
            some systems lies in memory itself.
        ahead: whether to fetch with a lookahead of one tensor, which takes the memory
            of one tensor more. None: on an accelerator only; from files in the operating
            system's cache the lookahead was slower (it pays where a disk is slow and a
            core is idle).
        checked: whether what comes back is compared with a checksum of what went.

    Example:
        >>> import torch
        >>> from elision.memory import Role, Slot
        >>> slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
        >>> x = torch.linspace(-1, 1, 1024)
        >>> packed = Offload().pack(x, slot)
        >>> packed.nbytes, x.nbytes
        (0, 4096)
    """

    directory: str | None = None
    ahead: bool | None = None
    checked: bool = False
    name = "offload"
    guarantee = Guarantee.EXACT
    roles = VALUE_ROLES
    offloads = True

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Offload the tensor.

        Raises:
            OffloadError: the file cannot be written (a full disk). The saver puts back
                what the forward pass did to buffers; nothing else has been touched.
        """
        values = flat(tensor)
        layout = Layout.of(tensor)
        checksum = Checksum.of([values], slot, layout.shape) if self.checked else None
        if tensor.device.type != "cpu":
            away: Away = InHostMemory(values, self.ahead is not False)
            return Packed((), layout, (away, checksum))
        where = self.directory or tempfile.gettempdir()
        try:
            away = InFile(values, where, bool(self.ahead))
        except OSError as error:
            full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
            raise OffloadError(
                f"offloading {values.nbytes} bytes of {slot.consumer} in module "
                f"{slot.module!r} to {where} failed{full}: {error}; parameters, "
                "buffers and optimizer are as they were before this forward pass: free "
                "some space or give Offload another directory, and repeat the step"
            ) from error
        return Packed((), layout, (away, checksum))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """Fetch the tensor.

        Raises:
            DamagedError: it is not what went, and ``checked``.
        """
        away, checksum = packed.meta
        values = away.bring()
        if checksum is not None:
            checksum.verify([values])
        return packed.layout.view(values)
