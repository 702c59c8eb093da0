"""Things named by a person: ``name`` or ``name:parameter=value,parameter=value``.

The same notation names recipes and accelerators, on the command line and in a file.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from elision.common.names import lookup

__all__ = ["build", "parse"]

T = TypeVar("T")

_OUTER_COMMA = re.compile(r",(?![^(]*\))")
_WORDS = {"true": True, "false": False, "none": None}


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """Split a spec into its name and its parameters.

    Values are whole numbers, decimal numbers, ``true``, ``false``, ``none``, two sides
    such as ``8x8``, or words. A comma in parentheses belongs to its word, so that
    ``memory:policy=expected(0.1, batch_norm=all)`` has one parameter.

    Raises:
        ValueError: a parameter is not of the form ``name=value``.
    """
    name, _, rest = spec.partition(":")
    parameters: dict[str, Any] = {}
    for part in filter(None, _OUTER_COMMA.split(rest)):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise ValueError(
                f"{spec!r}: {part!r} is not a parameter; write "
                f"{name}:parameter=value,parameter=value"
            )
        parameters[key.strip()] = _value(value.strip())
    return name.strip(), parameters


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    sides = text.split("x")
    if len(sides) == 2 and all(map(str.isdecimal, sides)):
        return int(sides[0]), int(sides[1])
    return text


def build(
    kind: str, spec: str, table: Mapping[str, Callable[..., T]], **more: object
) -> T:
    """Make the thing that a spec names.

    Args:
        kind: what is being named ("recipe", "accelerator"), for messages.
        spec: ``name`` or ``name:parameter=value,...``.
        table: names and what makes the thing; the things are dataclasses.
        **more: parameters given as they are; they win over those of the spec.

    Raises:
        ValueError: unknown name or parameter (lists the known ones), or a value that
            the thing refuses.
    """
    name, parameters = parse(spec)
    parameters |= more
    make = lookup(kind, name, table)
    if parameters:
        fields = dataclasses.fields(make())  # pyright: ignore[reportArgumentType]
        known = {f.name: f for f in fields if f.init}
        for parameter in parameters:
            lookup(f"parameter of {kind} {name!r}", parameter, known)
    try:
        return make(**parameters)
    except TypeError as error:
        raise ValueError(f"{kind} {spec!r}: {error}") from error
