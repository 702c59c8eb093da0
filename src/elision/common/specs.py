"""One grammar for names with parameters: recipes, machines, policies, probes.

Two notations say the same, on the command line, in files and in code::

    spec       = name [ ":" named { "," named } ]
               | name "(" [ argument { "," argument } ] ")"
    argument   = value | named            values without a name come first
    named      = parameter "=" value
    value      = number | "true" | "false" | "none" | rows "x" columns
               | "(" value { "," value } ")" | quoted | spec | word

``swat:sparsity=0.9`` and ``swat(0.9)`` are the same recipe; ``fp8:dense=(:first, :last)``
gives several values. A value in quotes is a word
whatever it contains; a quote inside it is doubled. A spec inside a spec stays text, for
the parameter that it is given to. The type that a parameter declares decides what its
value may be (:mod:`elision.common.declared`): ``zero_gating=no`` is False.
"""

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from elision.common.declared import declared
from elision.common.names import lookup

__all__ = ["Spec", "arguments", "build", "joined", "parse", "resolve"]

T = TypeVar("T")

_WORDS = {"true": True, "false": False, "none": None}
_SIDES = re.compile(r"([0-9]+)x([0-9]+)")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""", re.DOTALL)
_NAMED = re.compile(r"([A-Za-z_]\w*)\s*=\s*(.*)", re.DOTALL)
#: An equals sign that no spec inside the value and no quotation holds.
_STRAY_EQUALS = re.compile(r"[^:('\"]*=")


#: A plus sign before a name; one in a number is before a digit.
_PLUS = re.compile(r"\+\s*(?=[A-Za-z_./~])")


class _OfAnotherType(ValueError):
    """A value is not of its parameter's type; all values as they were given."""

    def __init__(self, message: str, given: dict[str, Any]) -> None:
        super().__init__(message)
        self.given = given


class Spec(NamedTuple):
    """A name and its parameters; ``str()`` writes them so that they are read again.

    Attributes:
        name: of the thing.
        positional: values without a name, in the order of the thing's parameters.
        named: the other values, by parameter.

    Example:
        >>> str(Spec("ant", (), {"multipliers": (4, 4), "window": 8}))
        'ant:multipliers=4x4,window=8'
        >>> str(Spec("expected", (0.1,), {"batch_norm": "all"}))
        'expected(0.1, batch_norm=all)'
    """

    name: str
    positional: tuple[Any, ...]
    named: dict[str, Any]

    def __str__(self) -> str:
        named = [f"{name}={_written(value)}" for name, value in self.named.items()]
        if self.positional:
            return (
                f"{self.name}({', '.join([*map(_written, self.positional), *named])})"
            )
        return f"{self.name}:{','.join(named)}" if named else self.name


def parse(spec: str) -> Spec:
    """Read a spec.

    Raises:
        ValueError: no name, a parenthesis or a quotation that is not closed, a part
            that is neither a value nor ``parameter=value``, or a parameter given twice.

    Example:
        >>> parse("scnn:grid=8x4,ideal=true").named
        {'grid': (8, 4), 'ideal': True}
        >>> parse("memory(policy=expected(0.1, batch_norm=all), batches=3)").named
        {'policy': 'expected(0.1, batch_norm=all)', 'batches': 3}
    """
    name, mark, body = re.match(r"([^:(]*)(.?)(.*)", spec, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    name, body = name.strip(), body.strip()
    if not name:
        raise ValueError(f"{spec!r}: a name is missing")
    if mark == "(":
        if not body.endswith(")"):
            raise ValueError(f"{spec!r}: a parenthesis is not closed")
        body = body[:-1]
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for part in _parts(spec, body):
        if match := _NAMED.fullmatch(part):
            parameter, value = match.groups()
            if parameter in named:
                raise ValueError(f"{spec!r}: {parameter!r} is given twice")
            named[parameter] = _value(spec, name, part, value)
        elif mark == ":" or named:
            raise _no_parameter(spec, name, part)
        else:
            positional.append(_value(spec, name, part, part))
    return Spec(name, tuple(positional), named)


def joined(text: str) -> list[str]:
    """The specs that plus signs join, outside parentheses and quotations.

    Example:
        >>> joined("swat:sparsity=0.9 + fp8(history=16)")
        ['swat:sparsity=0.9', 'fp8(history=16)']
    """
    parts, start, depth, quote = [], 0, 0, ""
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif not depth and (match := _PLUS.match(text, i)):
            parts.append(text[start:i].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def resolve(
    kind: str,
    spec: str,
    table: Mapping[str, Callable[..., T]],
    given: tuple[str, ...] = (),
) -> tuple[Callable[..., T], dict[str, Any]]:
    """Look up what makes the thing, and give every value of the spec its parameter.

    Args:
        kind: what is being named ("recipe", "accelerator"), for messages.
        spec: ``name``, ``name:parameter=value,...`` or ``name(value, ...)``.
        table: names and what makes the thing, whose signature has the parameters.
        given: parameters that the caller passes itself and a spec cannot.

    Returns:
        The maker, and the spec's values by parameter.

    Raises:
        ValueError: as :func:`parse` and :func:`arguments` do, or an unknown name.

    Example:
        >>> resolve("shape", "grid(2, columns=3)", {"grid": lambda rows, columns: 0})[1]
        {'rows': 2, 'columns': 3}
    """
    read = parse(spec)
    make = lookup(kind, read.name, table)
    parameters = inspect.signature(make).parameters.values()
    return make, arguments(kind, read, [p for p in parameters if p.name not in given])


def arguments(
    kind: str, spec: Spec, parameters: list[inspect.Parameter]
) -> dict[str, Any]:
    """The values of a spec by parameter.

    Args:
        kind: what is being named, for messages.
        spec: the spec.
        parameters: those of the thing, in the order of values without a name.

    Raises:
        ValueError: an unknown parameter (lists the known ones), one given twice, more
            values without a name than there are parameters for them, or a value that is
            not of its parameter's type.
    """
    ordered = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    known = dict.fromkeys(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
    open_ended = len(known) < len(parameters)
    if not parameters and (spec.positional or spec.named):
        raise ValueError(f"{kind} '{spec}': {spec.name} takes no parameters")
    if len(spec.positional) > len(ordered):
        raise ValueError(
            f"{kind} '{spec}': values without a name may stand for "
            f"{', '.join(ordered) or 'no parameter'}; got {len(spec.positional)}"
        )
    found = dict(zip(ordered, spec.positional, strict=False))
    for name, value in spec.named.items():
        if name in found:
            raise ValueError(f"{kind} '{spec}': {name!r} is given twice")
        if not open_ended:
            lookup(f"parameter of {kind} {spec.name!r}", name, known)
        found[name] = value
    types = {p.name: p.annotation for p in parameters}
    try:
        return {
            name: declared(f"{kind} {spec.name}", name, value, types.get(name, Any))
            for name, value in found.items()
        }
    except ValueError as error:
        raise _OfAnotherType(str(error), found) from None


def build(
    kind: str, spec: str, table: Mapping[str, Callable[..., T]], **more: object
) -> T:
    """Make the thing that a spec names.

    Args:
        kind: what is being named ("recipe", "accelerator"), for messages.
        spec: ``name``, ``name:parameter=value,...`` or ``name(value, ...)``.
        table: names and what makes the thing.
        **more: parameters given as they are; they win over those of the spec.

    Raises:
        ValueError: as :func:`resolve` does, a parameter is missing, or a value that the
            thing refuses.
    """
    try:
        make, found = resolve(kind, spec, table)
    except _OfAnotherType as error:
        # What the thing itself says of the value names its range, too.
        with contextlib.suppress(TypeError):
            table[parse(spec).name](**error.given | more)
        raise
    try:
        return make(**found | more)
    except TypeError as error:
        raise ValueError(f"{kind} {spec!r}: {error}") from error


def _parts(spec: str, body: str) -> list[str]:
    """The body, split at commas outside parentheses and quotations."""
    parts, depth, quote = [""], 0, ""
    for character in body:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "," and depth == 0:
            parts.append("")
            continue
        else:
            depth += (character == "(") - (character == ")")
            if depth < 0:
                raise ValueError(f"{spec!r}: a parenthesis closes that was not opened")
        parts[-1] += character
    if depth or quote:
        what = "quotation" if quote else "parenthesis"
        raise ValueError(f"{spec!r}: a {what} is not closed")
    return [part.strip() for part in parts] if body else []


def _value(spec: str, name: str, part: str, text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    if sides := _SIDES.fullmatch(text):
        return int(sides[1]), int(sides[2])
    if _QUOTED.fullmatch(text):
        return text[1:-1].replace(2 * text[0], text[0])
    if text.startswith("(") and text.endswith(")"):
        inner = _parts(spec, text[1:-1])
        return tuple(_value(spec, name, part, each) for each in inner)
    if not text or text[0] in "'\"" or _STRAY_EQUALS.match(text):
        raise _no_parameter(spec, name, part)
    return text


def _no_parameter(spec: str, name: str, part: str) -> ValueError:
    return ValueError(
        f"{spec!r}: {part!r} is not a parameter; write {name}:parameter=value,... or "
        f"{name}(value, parameter=value)"
    )


def _written(value: Any) -> str:
    """The value as :func:`parse` reads it, a word in quotes only where it must be."""
    if isinstance(value, tuple):
        sides = len(value) == 2 and all(type(v) is int and v >= 0 for v in value)
        return (
            "{}x{}".format(*value) if sides else f"({', '.join(map(_written, value))})"
        )
    if not isinstance(value, str):
        return str(value)
    try:
        plain = parse(f"name:value={value}").named == {"value": value}
    except ValueError:
        plain = False
    return value if plain else f"'{value.replace(chr(39), 2 * chr(39))}'"
