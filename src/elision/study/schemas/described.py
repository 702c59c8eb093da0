"""JSON Schema of a class, from its type hints and the ``Attributes`` of its docstring."""

import dataclasses
import inspect
import re
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["meanings", "schema_of"]

_PLAIN: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
}


def meanings(kind: type) -> dict[str, str]:
    """What each attribute of a class means, by its docstring; of properties, by theirs.

    Example:
        >>> from elision.training import EpochMetrics
        >>> meanings(EpochMetrics)["loss"]
        'mean training loss.'
    """
    doc = inspect.cleandoc(kind.__doc__ or "")
    _, _, rest = doc.partition("\nAttributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break  # the next section
        if entry := re.fullmatch(r" {4}(\w+): (.*)", line):
            name = entry[1]
            found[name] = _plain(entry[2])
        elif name and line.strip():
            found[name] += " " + _plain(line.strip())
    for name, value in inspect.getmembers(kind, lambda v: isinstance(v, property)):
        if value.__doc__:
            found.setdefault(name, _plain(value.__doc__.partition("\n")[0]))
    return found


def _plain(text: str) -> str:
    """A docstring without its markup: ``:class:`~elision.products.Product``` is Product."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?([\w]+)`", r"\1", text)
    return text.replace("``", "")


def schema_of(hint: Any) -> dict[str, Any]:
    """JSON Schema of a type: plain types, lists, dictionaries, dataclasses, TypedDicts.

    An object has the properties that are declared and no other, unless a TypedDict has
    one named ``others``, whose type is that of all further ones.

    Raises:
        TypeError: a type that JSON does not have.

    Example:
        >>> schema_of(dict[str, float | None])["additionalProperties"]
        {'type': ['number', 'null']}
    """
    if hint is Any:
        return {}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        found = [schema_of(part) for part in parts]
        if all(set(each) == {"type"} for each in found):
            return {"type": [each["type"] for each in found]}
        return {"anyOf": found}
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (list, tuple) and (origin is list or parts[-1] is Ellipsis):
        return {"type": "array", "items": schema_of(parts[0])}
    if origin is tuple:
        exact = {"minItems": len(parts), "maxItems": len(parts)}
        return {"type": "array", "prefixItems": [*map(schema_of, parts)], **exact}
    if origin in (typing.Required, typing.NotRequired):
        return schema_of(parts[0])
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(parts[1])}
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        return _object(typing.cast("type", hint))
    raise TypeError(f"{hint}: JSON has no such type")


def _object(kind: type) -> dict[str, Any]:
    hints, means = get_type_hints(kind), meanings(kind)
    if dataclasses.is_dataclass(kind):
        fields = {f.name: f for f in dataclasses.fields(kind)}
        needed = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
        hints = {name: hints[name] for name in fields}
    else:
        needed = [n for n in hints if n in getattr(kind, "__required_keys__", ())]
    others = hints.pop("others", None)
    first, _, _ = inspect.cleandoc(kind.__doc__ or "").partition("\n")
    return {
        "type": "object",
        "description": _plain(first),
        "properties": {
            name: schema_of(hint)
            | ({"description": means[name]} if name in means else {})
            for name, hint in hints.items()
        },
        "required": [name for name in needed if name != "others"],
        "additionalProperties": False if others is None else schema_of(others),
    }
