"""Transforms as plain values and back: what a recipe's file holds.

A transform becomes the table of its parameters and the name of its class. Only classes of
:data:`elision.operands.TRANSFORMS` are named and made; nothing is imported.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from elision.common.names import lookup
from elision.operands.base import Transform

__all__ = ["from_plain", "parameters_of", "to_plain"]

_CLASS = "transform"


def to_plain(value: Any, known: Mapping[str, type[Transform]]) -> Any:
    """A parameter as strings, numbers, booleans, lists and tables.

    Args:
        value: of a transform or a method: one of these, a tuple, or a transform.
        known: transform classes by name.

    Raises:
        ValueError: a value of another type, or a transform of a class not in ``known``.

    Example:
        >>> from elision.operands import TRANSFORMS, TopNofM
        >>> to_plain(TopNofM(2, 4), TRANSFORMS)
        {'transform': 'TopNofM', 'n': 2, 'm': 4}
    """
    if isinstance(value, Transform):
        name = type(value).__name__
        if known.get(name) is not type(value):
            raise ValueError(
                f"{value!r}: its class is not in elision.operands.TRANSFORMS; add it "
                f"there as {name!r} to write recipes that use it"
            )
        return {_CLASS: name, **parameters_of(value, known)}
    if isinstance(value, (tuple, list)):
        return [to_plain(item, known) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"a recipe's file holds no {type(value).__name__}: {value!r}")


def parameters_of(
    thing: Any, known: Mapping[str, type[Transform]], without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The parameters of a dataclass as plain values; a default of None is left out.

    Args:
        thing: a transform or a method.
        known: transform classes by name.
        without: names of parameters to leave out.

    Raises:
        ValueError: see :func:`to_plain`.
    """
    values = {
        f.name: (getattr(thing, f.name), f.default)
        for f in dataclasses.fields(thing)
        if f.init and f.name not in without
    }
    return {
        name: to_plain(value, known)
        for name, (value, default) in values.items()
        if value is not None or default is not None
    }


def from_plain(value: Any, known: Mapping[str, type[Transform]]) -> Any:
    """The value that :func:`to_plain` wrote; lists become tuples.

    Raises:
        ValueError: an unknown transform or parameter (lists the known ones), or a value
            out of its range.

    Example:
        >>> from elision.operands import TRANSFORMS
        >>> from_plain({"transform": "TopNofM", "n": 1}, TRANSFORMS)
        TopNofM(n=1, m=4)
    """
    if isinstance(value, list):
        return tuple(from_plain(item, known) for item in value)
    if not isinstance(value, dict):
        return value
    given = dict(value)
    name = given.pop(_CLASS, None)
    if not isinstance(name, str):
        raise ValueError(f"{value!r}: names no class; write transform = 'TopK'")
    kind = lookup("transform", name, known)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # pyright: ignore[reportArgumentType]
    for parameter in given:
        lookup(f"parameter of transform {name!r}", parameter, fields)
    try:
        return kind(**{k: from_plain(v, known) for k, v in given.items()})
    except TypeError as error:  # a parameter without a default is not there
        raise ValueError(f"transform {name!r}: {error}") from error
