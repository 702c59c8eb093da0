"""Loading the built kernels: one shared library, one C signature per function."""

import ctypes
import functools
from pathlib import Path
from typing import Any

from elision.common.forking import Lock
from elision.native.builder import NEXT_BEST, Build, BuildError, variant

__all__ = ["load", "loaded", "opened", "path", "unavailable"]

_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_FLOAT, _SEED = ctypes.c_float, ctypes.c_uint32
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "to_blocked": (_INT, [_POINTER, _POINTER, _INT, _LONG, _INT]),
    "from_blocked": (None, [_POINTER, _POINTER, _INT, _LONG, _INT]),
    "threshold": (_FLOAT, [_POINTER, _LONG, _LONG, _LONG, _INT]),
    "places_above": (_LONG, [_POINTER, _LONG, _FLOAT, _POINTER, _LONG]),
    "keep_largest": (_INT, [_POINTER] * 4 + [_LONG, _LONG, _INT]),
    "multiplies_halves": (_INT, []),
    "weights_new": (_POINTER, [_POINTER, _INT]),
    "weights_free": (None, [_POINTER]),
    "weights_compress": (_LONG, [_POINTER, _POINTER, _FLOAT, _INT, _INT, _INT]),
    "weights_follow": (_LONG, [_POINTER, _POINTER, _INT]),
    "weights_fill": (_INT, [_POINTER, _POINTER, _INT, _INT]),
    "weights_release": (None, [_POINTER]),
    "forward": (_INT, [_POINTER, _POINTER, _POINTER, _INT]),
    "input_grad": (_INT, [_POINTER, _POINTER, _POINTER, _INT]),
    "masked_grad": (_INT, [_POINTER, _POINTER, _POINTER, _POINTER, _INT]),
    "weight_grad": (
        _LONG,
        [_POINTER, _INT, _POINTER, _POINTER, _FLOAT, _POINTER, _INT],
    ),
    "rows_weight_grad": (
        _INT,
        [_POINTER, _LONG, _LONG] * 2 + [_LONG, _INT, _POINTER, _INT],
    ),
    "sparse_input_grad": (_INT, [_POINTER, _POINTER, _POINTER, _POINTER, _INT]),
    "norm_statistics": (None, [_POINTER] * 7 + [_INT] * 3 + [_FLOAT] + [_INT] * 2),
    "norm_apply": (None, [_POINTER] * 4 + [_INT] * 5),
    "norm_backward": (None, [_POINTER] * 11 + [_INT] * 6),
    "round": (
        None,
        [_POINTER, _POINTER, _LONG, _POINTER, _INT, _SEED, _FLOAT, _INT],
    ),
    "round_scaled": (
        _INT,
        [_POINTER] * 2 + [_LONG] * 4 + [_POINTER] * 2 + [_INT, _SEED, _INT],
    ),
    "narrow": (_INT, [_POINTER] * 4 + [_LONG, _INT, _FLOAT, _INT]),
    "widen": (None, [_POINTER] * 2 + [_LONG, _INT, _FLOAT, _INT]),
    "accumulate": (_INT, [_POINTER] * 5 + [_INT]),
    "integers_scan": (None, [_POINTER, _LONG, _POINTER, _POINTER]),
    "integers_of": (_INT, [_POINTER, _LONG, ctypes.c_double, _INT, _POINTER]),
    "multiplies_bytes": (_INT, []),
    "integer_sums": (
        _INT,
        [_POINTER] * 4 + [_LONG, ctypes.c_double, _LONG, _INT, _INT],
    ),
    "ternary_quantise": (_INT, [_POINTER] * 3 + [_FLOAT, _INT, _INT]),
    "ternary_forward": (_INT, [_POINTER] * 7 + [_FLOAT, _POINTER, _INT]),
    "ternary_planes": (_INT, [_POINTER] * 3 + [_FLOAT, _INT, _INT]),
    "ternary_sums": (_INT, [_POINTER] * 9 + [_FLOAT, _POINTER, _INT]),
    "max_pool_forward": (None, [_POINTER, _POINTER, _POINTER, _INT]),
    "max_pool_backward": (None, [_POINTER, _POINTER, _POINTER, _POINTER, _INT]),
    "k_tanh": (None, [_POINTER] * 4 + [_LONG, _INT, _INT]),
    "k_tanh_backward": (None, [_POINTER] * 3 + [_LONG, _INT, _INT]),
    "lstm_forward": (_INT, [_POINTER]),
    "lstm_backward": (_INT, [_POINTER]),
    "gru_forward": (_INT, [_POINTER]),
    "gru_backward": (_INT, [_POINTER]),
    "multiplies_tiles": (_INT, []),
    "bf16_lstm_forward": (_INT, [_POINTER]),
    "bf16_lstm_backward": (_INT, [_POINTER]),
    "bf16_gru_forward": (_INT, [_POINTER]),
    "bf16_gru_backward": (_INT, [_POINTER]),
    "multiplies_pairs": (_INT, []),
    "direct_forward": (
        _INT,
        [_POINTER, _INT] + [_POINTER] * 4 + [_INT, _POINTER, _INT],
    ),
    "direct_input_grad": (_INT, [_POINTER, _INT] + [_POINTER] * 3 + [_INT]),
    "direct_weight_grad": (_INT, [_POINTER, _INT] + [_POINTER] * 3 + [_INT]),
    "winograd_forward": (
        _INT,
        [_POINTER, _INT] + [_POINTER] * 4 + [_INT, _POINTER, _INT],
    ),
    "multiply_adds": (_LONG, [_LONG, _FLOAT, _INT, _POINTER]),
    "triad": (None, [_POINTER] * 3 + [_FLOAT, _LONG, _INT]),
    "chase": (_LONG, [_POINTER, _LONG]),
    "lists_count": (_LONG, [_POINTER, _LONG, _LONG, _POINTER, _POINTER]),
    "lists_fill": (None, [_POINTER, _LONG, _LONG, _POINTER, _POINTER]),
    "sparse_lstm_forward": (_INT, [_POINTER]),
    "sparse_lstm_backward": (_INT, [_POINTER]),
    "sparse_gru_forward": (_INT, [_POINTER]),
    "sparse_gru_backward": (_INT, [_POINTER]),
}
_BUILDING = Lock()


@functools.cache
def path() -> Path:
    """The built library for this CPU.

    Raises:
        BuildError: it cannot be built; the message gives the reason.
    """
    best = variant()
    while True:
        try:
            return Build(best).library()
        except BuildError:
            if best not in NEXT_BEST:
                raise
            best = NEXT_BEST[best]


@functools.cache
def _load() -> ctypes.CDLL:
    return opened(path())


def opened(path: Path) -> ctypes.CDLL:
    """A built library, its functions with their signatures.

    Raises:
        BuildError: it cannot be loaded; the message gives the reason.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"the built kernels cannot be loaded: {error}") from error
    for function, (result, arguments) in _SIGNATURES.items():
        entry = getattr(library, f"elision_{function}", None)
        if entry is None:
            raise BuildError(f"{path}: the library has no function elision_{function}")
        entry.restype, entry.argtypes = result, arguments
    return library


def load() -> ctypes.CDLL:
    """The library for this CPU, built if need be.

    Raises:
        BuildError: it cannot be built or loaded; the message gives the reason.
    """
    with _BUILDING:
        return _load()


def loaded() -> bool:
    """Whether the library is there already, so that a call need not build it."""
    return _load.cache_info().currsize > 0


@functools.cache
def unavailable() -> str | None:
    """Why there are no native kernels here, in one line; None if there are.

    The first call builds them. The answer is kept for the life of the process.
    """
    try:
        load()
    except BuildError as error:
        return str(error)
    return None
