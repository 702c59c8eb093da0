"""Simulator kernels: plain functions that Numba compiles at their first call.

The machine code is cached on disk, so that only the first call of a fresh installation
waits for a compiler, with a warning. The undecorated function stays reachable as
``__wrapped__``: the same loops in plain Python.
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elision.common.machine_code import compiled_once

__all__ = ["compiled"]

logger = logging.getLogger(__name__)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` with Numba at its first call and cache the machine code.

    Numba itself is imported at that first call. The function must be self-contained
    (it may not call another compiled one) and be called with one set of types.
    """
    dispatcher: Any = None

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        nonlocal dispatcher
        if dispatcher is None:
            dispatcher = _dispatcher(function)
        return dispatcher(*args)

    return call


def _dispatcher(function: Callable[..., Any]) -> Any:
    """Numba's compiler for the function; warns if the machine code is not cached."""
    name = function.__name__
    dispatcher = compiled_once(nogil=True)(function)
    if dispatcher.stats.cache_path is None:  # no folder to keep it in can be written to
        logger.warning("compiling the simulator kernel %s for this process only", name)
        return dispatcher
    folder = Path(dispatcher.stats.cache_path)
    if not any(folder.glob(f"*.{name}-*.nbi")):
        # A warning, because Python shows those without any set-up.
        logger.warning(
            "compiling the simulator kernel %s, once for this installation (kept in %s)",
            name,
            folder,
        )
    return dispatcher
