"""Products computed by code that was made from a schedule.

The code is a function of contiguous tensors, of sizes and, in C++, of a number of
threads. C++ is built once by the user's compiler and kept with the native kernels; Python
is compiled by numba in memory.
"""

import ctypes
import linecache
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from elision.common.names import lookup
from elision.native.builder import build_text

__all__ = ["LANGUAGES", "compiled"]

#: Flags beyond those of the kernels: threads, and instructions of this CPU.
_FLAGS = ("-fopenmp", "-march=native", "-ffp-contract=fast")

_TYPES = {"float": torch.float32, "double": torch.float64}

#: A product: inputs, output (overwritten), sizes, threads.
Run = Callable[[Sequence[torch.Tensor], torch.Tensor, Sequence[int], int], None]


def _cpp(text: str, function: str) -> Run:
    library = ctypes.CDLL(str(build_text(text, _FLAGS)))
    call = library[function]
    call.restype = None

    def run(
        inputs: Sequence[torch.Tensor],
        output: torch.Tensor,
        sizes: Sequence[int],
        threads: int = 1,
    ) -> None:
        tensors = (*inputs, output)
        _check(tensors)
        call(
            *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
            *(ctypes.c_long(size) for size in sizes),
            ctypes.c_int(threads),
        )

    return run


def _python(text: str, function: str) -> Run:
    from numba import njit

    name = f"<{function} made from a schedule>"
    # Tracebacks show the lines of code that lies in no file.
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {}
    exec(compile(text, name, "exec"), names)
    call: Any = njit(names[function], fastmath={"contract"})

    def run(
        inputs: Sequence[torch.Tensor],
        output: torch.Tensor,
        sizes: Sequence[int],
        threads: int = 1,
    ) -> None:
        tensors = (*inputs, output)
        _check(tensors)
        call(*(tensor.numpy() for tensor in tensors), *map(np.int64, sizes))

    return run


def _check(tensors: Sequence[torch.Tensor]) -> None:
    for tensor in tensors:
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(
                "generated code needs contiguous tensors on the CPU; given one of shape "
                f"{tuple(tensor.shape)} and strides {tensor.stride()} on {tensor.device}"
            )
        if tensor.dtype != tensors[0].dtype or tensor.dtype not in _TYPES.values():
            raise ValueError(
                f"generated code needs tensors of one dtype, torch.float32 or "
                f"torch.float64; given {', '.join(str(t.dtype) for t in tensors)}"
            )


#: Languages and how their code becomes a function.
LANGUAGES = {"cpp": _cpp, "python": _python}


def compiled(text: str, language: str, function: str) -> Run:
    r"""A function of tensors, from code.

    Args:
        text: of the code, which is trusted.
        language: a key of :data:`LANGUAGES`.
        function: its name in the code.

    Returns:
        ``run(inputs, output, sizes, threads)``; it raises ValueError for tensors that are
        not contiguous, not on the CPU or not of one floating dtype. Python runs on one
        thread.

    Raises:
        ValueError: an unknown language; lists the valid ones.
        elision.native.builder.BuildError: C++ that cannot be built here.

    Example:
        >>> text = "def twice(x, y, N):\n    for i in range(N):\n        y[i] = 2 * x[i]\n"
        >>> x, y = torch.tensor([1.0, 2.0]), torch.empty(2)
        >>> compiled(text, "python", "twice")([x], y, [2], 1)
        >>> y
        tensor([2., 4.])
    """
    return lookup("language", language, LANGUAGES)(text, function)
