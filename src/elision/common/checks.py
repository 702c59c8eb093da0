"""Range checks of parameters, with one form of message."""

import functools
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    "MOST_COUNT",
    "count",
    "integer",
    "number",
    "numbers",
    "one_of",
    "random_seed",
]

#: Most that can be counted out in a configuration: torch's sizes are integers of 64 bits,
#: in which the product of two such counts still fits.
MOST_COUNT = 2**31 - 1

#: Largest seed: torch takes 64 bits, and the seeds of further runs count on from the first.
_MOST_SEED = 2**62


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


def count(
    owner: str, name: str, value: Any, least: int = 1, most: int = MOST_COUNT
) -> int:
    """Return a number of things as an int; what no run could hold is refused.

    Args:
        owner: class or command that has the parameter.
        name: the parameter.
        value: the value given.
        least: smallest allowed.
        most: largest allowed.

    Raises:
        ValueError: not an integer, or outside of the bounds.

    Example:
        >>> count("workload", "batch_size", 10**12)
        Traceback (most recent call last):
        ValueError: workload(batch_size=1000000000000): must be an integer in [1, 2147483647]
    """
    if type(value) is int and least <= value <= most:
        return value
    integer(owner, name, value, f">= {least}")
    return integer(owner, name, value, f"[{least}, {most}]")


def random_seed(owner: str, name: str, value: Any) -> int:
    """Return a seed as an int that torch's generators take, and so its successors.

    Args:
        owner: class or command that has the parameter.
        name: the parameter.
        value: the value given.

    Raises:
        ValueError: not an integer, negative, or larger than 2**62.

    Example:
        >>> random_seed("study", "seed", -1)
        Traceback (most recent call last):
        ValueError: study(seed=-1): must be an integer >= 0
    """
    return count(owner, name, value, 0, _MOST_SEED)


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


def numbers(
    owner: str, row: Mapping[str, Any], none: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a row of a file; each of its values must be a number.

    Args:
        owner: class that the row is for.
        row: values by name; NaN and infinities are numbers, integers that no float can
            hold are not.
        none: names whose value may be None.

    Raises:
        ValueError: a value is of another kind.

    Example:
        >>> numbers("RoundMetrics", {"round": 1, "loss": None}, none=("loss",))
        {'round': 1, 'loss': None}
        >>> numbers("RoundMetrics", {"round": "1"})
        Traceback (most recent call last):
        ValueError: RoundMetrics(round='1'): must be a number
    """
    for name, value in row.items():
        if value is None and name in none:
            continue
        is_large = isinstance(value, int) and abs(value) > _LARGEST
        if is_large or isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{owner}({name}={value!r}): must be a number")
    return dict(row)


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
