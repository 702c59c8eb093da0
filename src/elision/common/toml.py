"""Plain values written as TOML, and read with every refusal a ValueError."""

import json
import math
import re
import tomllib
from typing import Any

__all__ = ["from_toml", "to_toml"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(values: dict[str, Any], _path: tuple[str, ...] = ()) -> str:
    """A table as TOML text, which ``tomllib`` reads back to equal values.

    Args:
        values: strings, numbers, booleans, lists of values and tables of these by
            name; tuples are written as lists.

    Raises:
        ValueError: a value that TOML cannot hold, such as None.

    Example:
        >>> print(to_toml({"name": "mine", "table": {"forward": {"keep": 0.5}}}))
        name = "mine"
        <BLANKLINE>
        [table.forward]
        keep = 0.5
        <BLANKLINE>
    """
    lines, tables = [], []
    for key, value in values.items():
        path = (*_path, key)
        header = ".".join(map(_key, path))
        if isinstance(value, dict):
            nested = to_toml(value, path)
            # A table of tables needs no header of its own.
            own = not value or not nested.startswith("\n")
            tables.append(f"\n[{header}]\n{nested}" if own else nested)
        elif _is_list_of_tables(value):
            tables += [f"\n[[{header}]]\n{to_toml(item, path)}" for item in value]
        else:
            lines.append(f"{_key(key)} = {_value('.'.join(path), value)}\n")
    return "".join(lines + tables)


def _is_list_of_tables(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) and bool(value)
    return is_list and all(isinstance(item, dict) for item in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(name, item) for item in value)}]"
    if isinstance(value, dict):
        items = (f"{_key(k)} = {_value(name, v)}" for k, v in value.items())
        return f"{{{', '.join(items)}}}"
    raise ValueError(f"{name}: TOML holds no {type(value).__name__} such as {value!r}")


def from_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: it is not TOML, or nested more deeply than Python reads.

    Example:
        >>> from_toml("a = 1")
        {'a': 1}
        >>> from_toml("a = " + "[" * 100_000)
        Traceback (most recent call last):
        ValueError: nested too deeply
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
