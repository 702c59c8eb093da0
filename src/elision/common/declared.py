"""Values of parameters, fitted to the type that the parameter declares.

One rule for recipes, machines, policies and probes, whether a value was typed on a
command line, read from a file or passed in code: the annotation decides. Nothing is
guessed: ``2.5`` is no integer, ``no`` is no number, and ``8`` is no pair.
"""

import inspect
import types
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

__all__ = ["declared", "fit_fields"]

#: Words for a boolean.
_WORDS = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}

#: Types that values are fitted to, and how a message calls them.
_NOUNS: dict[Any, str] = {
    bool: "yes or no",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "none",
}


class _Unfit(Exception):
    """The value is not of the type."""


def declared(owner: str, name: str, value: Any, annotation: Any) -> Any:
    """The value as the declared type has it; numpy's numbers become Python's.

    Args:
        owner: class or spec that has the parameter, for messages.
        name: the parameter.
        value: the value given.
        annotation: a type, a union, a tuple or a ``Literal`` of these. Values of other
            types (a class, ``Any``, none declared) are passed on as they are.

    Raises:
        ValueError: the value is of another type; the message says what is allowed.

    Example:
        >>> declared("Systolic", "zero_gating", "no", bool)
        False
        >>> declared("Scnn", "grid", 8, tuple[int, int])
        Traceback (most recent call last):
        ValueError: Scnn(grid=8): must be 2 integers, such as 8x4
    """
    members = _members(annotation)
    # A value that is of one of the types already is not converted to another.
    ordered = sorted(members, key=lambda member: type(value) is not member)
    for member in ordered:
        try:
            return _fitted(value, member)
        except _Unfit:
            continue
    nouns = " or ".join(dict.fromkeys(map(_noun, members)))
    raise ValueError(f"{owner}({name}={value!r}): must be {nouns}")


def fit_fields(instance: Any) -> None:
    """Fit the fields of a dataclass, frozen or not, to their declared types.

    Raises:
        ValueError: as :func:`declared`.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Array:
        ...     rows: int
        ...     gated: bool = False
        ...     __post_init__ = fit_fields
        >>> Array(np.int64(8), gated="yes")
        Array(rows=8, gated=True)
    """
    kind = type(instance)
    hints = _hints(kind)
    for field in fields(kind):
        value = getattr(instance, field.name)
        fitted = declared(kind.__name__, field.name, value, hints.get(field.name, Any))
        if fitted is not value:
            object.__setattr__(instance, field.name, fitted)


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of a class's fields; none where one is a name that only checkers know."""
    try:
        return get_type_hints(kind)
    except NameError:
        return {}


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for part in get_args(annotation) for m in _members(part))
    return (annotation,)


def _fitted(value: Any, kind: Any) -> Any:
    """The value as one type has it; raises _Unfit."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple:
        return _fitted_tuple(value, parts)
    if origin is Literal:
        return _only(value, value in parts)
    if isinstance(value, np.generic):
        value = value.item()
    if kind is bool:
        if isinstance(value, str) and value.lower() in _WORDS:
            return _WORDS[value.lower()]
        return _only(value, isinstance(value, bool))
    if kind is int:
        return _only(value, isinstance(value, int) and not isinstance(value, bool))
    if kind is float:
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(_only(value, real))
    if kind in _NOUNS:
        return _only(value, isinstance(value, kind))
    if kind in (Any, inspect.Parameter.empty) or not isinstance(kind, type):
        return value
    return _only(value, isinstance(value, kind))


def _fitted_tuple(value: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise _Unfit
    if parts[-1:] == (...,):
        parts = parts[:1] * len(value)
    if len(value) != len(parts):
        raise _Unfit
    return tuple(_fitted(v, part) for v, part in zip(value, parts, strict=True))


def _only(value: Any, fits: bool) -> Any:
    if not fits:
        raise _Unfit
    return value


def _noun(kind: Any) -> str:
    """The type in words."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, parts))
    if get_origin(kind) is tuple:
        noun = {int: "integers", float: "numbers", str: "texts"}.get(parts[0], "values")
        if parts[-1:] == (...,):
            return f"any number of {noun}, such as (a, b)"
        example = ", such as 8x4" if parts == (int, int) else ""
        return f"{len(parts)} {noun}{example}"
    return _NOUNS.get(kind, f"a {getattr(kind, '__name__', kind)}")
