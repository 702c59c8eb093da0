"""Codecs' kernels for NVIDIA's GPUs, by Triton.

``group``, ``masks``, ``compaction`` and ``jpeg`` have the interfaces of the torch versions
of the same formats, which they replace on a GPU once they have shown there that they give
the same: at the first use in a process they are compiled and tried on a few thousand
values, and what the torch version computes of these on the CPU has to come out. Where it
does not, or where a kernel cannot be compiled, a warning says so and torch computes.
"""

import functools
import importlib.util
import warnings

import torch

from elision.common.extras import not_installed

__all__ = ["CAPABILITY", "LARGEST_GROUP", "unavailable", "usable"]

#: Least compute capability: Ampere's, for which the kernels are compiled ahead of time in
#: the tests.
CAPABILITY = (8, 0)

#: Elements of the largest group that one program holds (an own choice: 32 registers of
#: each thread of four warps).
LARGEST_GROUP = 4096


def usable(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies on a device where the kernels work."""
    return tensor.device.type == "cuda" and unavailable(tensor.device) is None


@functools.cache
def unavailable(device: torch.device) -> str | None:
    """Why the kernels do not work on a device, in one line; None if they do.

    The first call for a device compiles them, in some seconds unless Triton's cache has
    them, and tries them out.

    Example:
        >>> unavailable(torch.device("cpu"))
        'cpu is no CUDA device'
    """
    if device.type != "cuda":
        return f"{device.type} is no CUDA device"
    if torch.version.cuda is None:
        return "this build of torch is not for NVIDIA's GPUs"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        least, has = (".".join(map(str, of)) for of in (CAPABILITY, capability))
        return f"compute capability {least} is needed, and {device} has {has}"
    if importlib.util.find_spec("triton") is None:
        return f"triton {not_installed('gpu')}"
    try:
        from elision.memory.codecs.on_gpu.trial import differing

        found = differing(device)
    except Exception as error:  # whatever a compiler or a driver says
        first = f"{error}".partition("\n")[0]
        found = f"{type(error).__name__}: {first}"
    if found is not None:
        warnings.warn(
            f"elision.memory: Triton's kernels are not used on {device} ({found}); torch "
            "computes, in more time and memory",
            RuntimeWarning,
            stacklevel=2,
        )
    return found
