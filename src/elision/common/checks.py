"""Range checks of parameters, with one form of message."""

import functools
import math
import re
import sys
from typing import Any

import numpy as np

__all__ = ["integer", "number", "one_of"]


def integer(owner: str, name: str, value: Any, allowed: str = ">= 1") -> int:
    """Return ``value`` as an int; an error names the allowed range.

    Args:
        owner: class or command that has the parameter.
        name: the parameter.
        value: the value given; numpy integers count as integers, booleans do not.
        allowed: an interval such as ``">= 1"``, ``"> 0"``, ``"[1, 8]"`` or ``"[0, n)"``
            with numbers in place of ``n``.

    Raises:
        ValueError: not an integer, or outside ``allowed``.

    Example:
        >>> integer("Conv2dGeometry", "groups", 2)
        2
        >>> integer("Conv2dGeometry", "groups", 0)
        Traceback (most recent call last):
        ValueError: Conv2dGeometry(groups=0): must be an integer >= 1
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not _holds(int(value), allowed):
        raise ValueError(_message(owner, name, value, "an integer", allowed))
    return int(value)


def number(owner: str, name: str, value: Any, allowed: str) -> float:
    """Return ``value`` as a float; an error names the allowed range. NaN is in none.

    Args and errors are those of :func:`integer`; infinity lies in an open-ended
    interval only where it is written: ``"(0, inf]"``.

    Example:
        >>> number("TopK", "sparsity", 1.5, "[0, 1)")
        Traceback (most recent call last):
        ValueError: TopK(sparsity=1.5): must be a number in [0, 1)
    """
    real = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, int) and abs(value) > _LARGEST:  # no float can hold it
        real = False
    if not real or isinstance(value, bool) or not _holds(float(value), allowed):
        raise ValueError(_message(owner, name, value, "a number", allowed))
    return float(value)


_LARGEST = int(sys.float_info.max)


def one_of(owner: str, name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ValueError, naming the allowed values, unless ``value`` is among them.

    Example:
        >>> one_of("Cast", "scale", "row", ("none", "tensor"))
        Traceback (most recent call last):
        ValueError: Cast(scale='row'): must be 'none' or 'tensor'
    """
    if value not in allowed:
        names = " or ".join(map(repr, allowed))
        raise ValueError(f"{owner}({name}={value!r}): must be {names}")


def _message(owner: str, name: str, value: Any, noun: str, allowed: str) -> str:
    word = "" if allowed[0] in "<>" else "in "
    return f"{owner}({name}={value!r}): must be {noun} {word}{allowed}"


def _holds(value: float, allowed: str) -> bool:
    low, low_open, high, high_open = _bounds(allowed)
    return (low < value if low_open else low <= value) and (
        value < high if high_open else value <= high
    )


@functools.cache
def _bounds(allowed: str) -> tuple[float, bool, float, bool]:
    """Lower bound, True if excluded, upper bound, True if excluded."""
    if found := re.fullmatch(r"(>=?) (\S+)", allowed):
        return float(found[2]), found[1] == ">", math.inf, True
    found = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", allowed)
    assert found is not None, allowed
    return float(found[2]), found[1] == "(", float(found[3]), found[4] == ")"
